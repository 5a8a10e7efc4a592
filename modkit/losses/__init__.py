"""Losses: the terms of adversarial games and the penalties on a critic."""

from modkit.losses.adversarial import KL, Hinge, NonSaturating, ReverseKL
from modkit.losses.regularizers import R1

__all__ = ["KL", "R1", "Hinge", "NonSaturating", "ReverseKL"]
