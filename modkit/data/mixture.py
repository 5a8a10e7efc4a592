"""Mixtures of 2-D Gaussians on a ring or a grid: data on which lost modes can be counted.

    x = centers[k] + std * eps        k is uniform over the modes, eps ~ N(0, I)

Sample i of a split is a function of (split, i): it does not depend on the number of samples, and mixtures differ in
their centers only, never in their noise. Each paper uses another mixture; the docstrings say which the defaults follow.

Shape letters: b batch, k modes.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from modkit.data.moments import measure_std
from modkit.data.splits import InMemory, hash_contents
from modkit.rng import Rng
from modkit.types import Modes, TensorType

__all__ = ["Grid", "Mixture", "Ring"]

Std = Annotated[float, "Standard deviation of each."]
Num = Annotated[int, "Number of training samples."]
NumTest = Annotated[int, "Number of test samples."]

_MOST_MODES, _MOST_SAMPLES = 10_000, 10_000_000
_CELL = 64  # samples per row of draws: rows of an Rng are padded, so one sample per row would waste most of each


class Mixture(InMemory):
    """A mixture of equally likely 2-D Gaussians, isotropic, `b 2`, unbounded, with the mode as field `labels` (`b`).

    Args:
        centers: The modes, `k 2`.
        std: Standard deviation of each mode, at least 0.
        num: Number of training samples.
        num_test: Number of test samples.

    Raises:
        ValueError: If there are no samples or too many, or `std` is negative.

    Examples:
        >>> data = Mixture(torch.tensor([[0.0, 5.0]]), std=0.0, num=2, num_test=1)
        >>> data.read("train", [0, 1], Rng(0)).tensor
        tensor([[0., 5.],
                [0., 5.]])
    """

    def __init__(self, centers: Tensor, *, std: float, num: int, num_test: int) -> None:
        name = type(self).__name__
        if not 0 <= std < math.inf:
            raise ValueError(f"{name} expects a finite std of at least 0, got {std}")
        if min(num, num_test) < 1 or max(num, num_test) > _MOST_SAMPLES:
            raise ValueError(f"{name} expects num and num_test in [1, {_MOST_SAMPLES}], got {num} and {num_test}")
        self.centers = centers
        self.std = std
        self.fields = {"labels": TensorType((), classes=len(centers))}
        self.splits = {"train": num, "test": num_test}
        self.levels = None
        self.key = hash_contents("mixture", repr(centers.tolist()), std, num, num_test)
        self._samples = {split: self._draw(split, size) for split, size in self.splits.items()}
        self.x = TensorType((2,), std=measure_std(self))

    @property
    def truth(self) -> Modes:
        """The modes that samples are drawn from."""
        return Modes(self.centers, self.std)

    def _draw(self, split: str, num: int) -> tuple[Tensor, Tensor]:
        rng = Rng(0, "mixture", split)
        cells = -(-num // _CELL)
        modes = rng.integers("mode", torch.empty(cells, _CELL), 0, len(self.centers)).view(-1)[:num].clone()
        eps = rng.normal("eps", torch.empty(cells, _CELL, 2)).view(-1, 2)[:num]
        return self.centers[modes] + self.std * eps, modes


class Ring(Mixture):
    """Gaussians evenly spaced on a circle; mode j is at the angle 2 pi j / modes.

    The defaults are D2GAN's ring (Nguyen et al., 2017: radius 2, variance .02); public reproductions of VEEGAN use
    radius 4 and std .05.

    Args:
        modes: Number of Gaussians.
        radius: Distance of their centers from the origin.

    Raises:
        ValueError: If there are no modes or samples, or too many, or `std` is negative.

    Examples:
        >>> data = Ring(modes=4, radius=1.0, num=1, num_test=1)
        >>> data.truth.centers[0].tolist()
        [1.0, 0.0]
    """

    def __init__(
        self,
        *,
        modes: int = 8,
        radius: float = 2.0,
        std: Std = math.sqrt(0.02),  # noqa: B008
        num: Num = 100_000,
        num_test: NumTest = 10_000,
    ) -> None:
        _check_modes(self, modes)
        angles = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
        centers = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
        super().__init__(centers.float(), std=std, num=num, num_test=num_test)


class Grid(Mixture):
    """Gaussians on a square lattice around the origin, row by row.

    The defaults are VEEGAN's grid (Srivastava et al., 2017, as publicly reproduced): {-4, -2, 0, 2, 4}², std .05.

    Args:
        side: Number of Gaussians along each axis.
        spacing: Distance between neighbours.

    Raises:
        ValueError: If there are no modes or samples, or too many, or `std` is negative.

    Examples:
        >>> Grid(side=2, num=1, num_test=1).truth.centers.tolist()
        [[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]
    """

    def __init__(
        self, *, side: int = 5, spacing: float = 2.0, std: Std = 0.05, num: Num = 100_000, num_test: NumTest = 10_000
    ) -> None:
        _check_modes(self, max(side, 0) ** 2)
        axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * spacing
        super().__init__(torch.cartesian_prod(axis, axis).float(), std=std, num=num, num_test=num_test)


def _check_modes(mixture: Mixture, modes: int) -> None:
    if not 1 <= modes <= _MOST_MODES:
        raise ValueError(f"{type(mixture).__name__} expects modes in [1, {_MOST_MODES}], got {modes}")
