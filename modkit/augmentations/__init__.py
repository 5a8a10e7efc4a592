"""Augmentations: what changes samples before a critic judges them, so that it cannot learn few samples by heart."""

from modkit.augmentations.ada import ADA
from modkit.augmentations.diffaugment import DiffAugment

__all__ = ["ADA", "DiffAugment"]
