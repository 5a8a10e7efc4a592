"""Spirals: points along arms that wind around the origin, with noise.

    x = radius r (cos a, sin a) + std eps,    a = 2 pi (turns r + k / arms),    r = sqrt(u), u uniform in [0, 1)

k is uniform over the arms; r is such that points are about as dense outside as inside.

Shape letters: b batch.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from modkit.data.points import Num, NumTest, Points
from modkit.rng import Rng
from modkit.types import NonNegativeFloat, Range, checked

__all__ = ["Spirals"]

_MOST_ARMS = 100


@checked
class Spirals(Points):
    """Points on spirals, `b 2`, with the number of their arm as the field `labels`.

    References:
        FFJORD (Grathwohl et al., 2019), figure 2, https://arxiv.org/abs/1810.01367

    Args:
        arms: Number of spirals.
        turns: How often each winds around the origin.
        radius: Distance of their ends from the origin.
        std: Standard deviation of the noise.

    Raises:
        ValueError: If a number is out of range.

    Examples:
        >>> data = Spirals(std=0.0, num=4, num_test=1)
        >>> bool((data.read("train", range(4), Rng(0)).tensor.norm(dim=1) <= 4).all())
        True
    """

    def __init__(
        self,
        *,
        arms: Annotated[int, Range(1, _MOST_ARMS)] = 2,
        turns: NonNegativeFloat = 1.5,
        radius: NonNegativeFloat = 4.0,
        std: NonNegativeFloat = 0.1,
        num: Num = 100_000,
        num_test: NumTest = 10_000,
    ) -> None:
        self.arms, self.turns, self.radius, self.std = arms, turns, radius, std
        super().__init__("spirals", arms, turns, radius, std, classes=arms, num=num, num_test=num_test)

    def _place(self, rng: Rng, cells: Tensor) -> tuple[Tensor, Tensor]:
        labels = rng.integers("arm", cells, 0, self.arms)
        r = rng.uniform("place", cells).sqrt()
        angle = 2 * math.pi * (self.turns * r + labels / self.arms)
        eps = rng.normal("eps", cells[..., None].expand(*cells.shape, 2))
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        return self.radius * r[..., None] * direction + self.std * eps, labels
