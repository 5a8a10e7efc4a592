"""How many batches the statistics of averaged weights are measured on, in this process and in forks."""

__all__ = ["FEW"]

FEW = 4
