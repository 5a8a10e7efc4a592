"""Training: the trainer, the players of each stage, callbacks and loggers."""
