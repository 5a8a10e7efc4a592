"""Training: the one loop over players and stages, and what watches it."""
