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

from modkit.data.points import Num, NumTest, Points
from modkit.rng import Rng
from modkit.types import Modes, Range, checked

__all__ = ["Grid", "Mixture", "Ring"]

Std = Annotated[float, "Standard deviation of each.", Range(0)]

_MOST_MODES = 10_000


@checked
class Mixture(Points):
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

    def __init__(self, centers: Tensor, *, std: Std, num: int, num_test: int) -> None:
        self.centers, self.std = centers, std
        super().__init__("mixture", repr(centers.tolist()), std, classes=len(centers), num=num, num_test=num_test)

    @property
    def truth(self) -> Modes:
        """The modes that samples are drawn from."""
        return Modes(self.centers, self.std)

    def _place(self, rng: Rng, cells: Tensor) -> tuple[Tensor, Tensor]:
        modes = rng.integers("mode", cells, 0, len(self.centers))
        eps = rng.normal("eps", cells[..., None].expand(*cells.shape, 2))
        return self.centers[modes] + self.std * eps, modes


@checked
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
        modes: Annotated[int, Range(1, _MOST_MODES)] = 8,
        radius: float = 2.0,
        std: Std = math.sqrt(0.02),  # noqa: B008
        num: Num = 100_000,
        num_test: NumTest = 10_000,
    ) -> None:
        angles = torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
        centers = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
        super().__init__(centers.float(), std=std, num=num, num_test=num_test)


@checked
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
        self,
        *,
        side: Annotated[int, Range(1, 100)] = 5,
        spacing: float = 2.0,
        std: Std = 0.05,
        num: Num = 100_000,
        num_test: NumTest = 10_000,
    ) -> None:
        axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * spacing
        super().__init__(torch.cartesian_prod(axis, axis).float(), std=std, num=num, num_test=num_test)
