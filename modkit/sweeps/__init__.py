"""Sweeps: many runs of one spec, compared."""
