"""Runs: the files that a training run leaves on disk."""
