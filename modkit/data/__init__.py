"""Data sets: each reads the samples that it is asked for, and has no order of its own."""
