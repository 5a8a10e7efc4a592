"""Losses: the terms of adversarial games and the penalties on a critic."""

from modkit.losses.adversarial import Hinge, NonSaturating
from modkit.losses.regularizers import R1

__all__ = ["R1", "Hinge", "NonSaturating"]
