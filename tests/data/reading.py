"""How data sets are read."""

from modkit.rng import Rng


def read_split(data, split="train", num=None, rng=None):
    """A split, or its first samples."""
    return data.read(split, range(num or data.splits[split]), rng or Rng(0))
