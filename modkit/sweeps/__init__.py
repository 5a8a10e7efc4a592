"""Sweeps: a spec trained and evaluated over the product of some axes."""
