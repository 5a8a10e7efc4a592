"""Grids of a table's indices. Without a table they are EDM's noise levels, down to the schedule's lowest.

References:
    Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2023), table 2,
    https://arxiv.org/abs/2305.08891

Shape letters: n times.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from modkit.grids.levels import space_noise_levels
from modkit.grids.steps import check_steps
from modkit.kinds import Schedule
from modkit.types import TensorType

__all__ = ["Leading", "Linspace", "Trailing"]


class _Indices(ABC):
    """Base class: a subclass chooses the indices."""

    def __init__(self, schedule: Schedule, x: TensorType | None = None) -> None:
        self.schedule = schedule
        self.noise_levels = schedule.num is None

    def __call__(self, steps: int) -> Tensor:
        """The times of `steps` steps, `steps + 1`, float64 on the CPU, descending, the last 0."""
        num = self.schedule.num
        if num is None:
            return space_noise_levels(self, self.schedule, steps)
        check_steps(self, steps, self.schedule)
        indices = self.choose(num, torch.arange(steps, dtype=torch.float64, device="cpu"))
        return torch.cat([(indices + 1) / num, indices.new_zeros(1)])

    @abstractmethod
    def choose(self, num: int, step: Tensor) -> Tensor:
        """Chooses the indices of a table of `num`, given the numbers of the steps, `n`."""


class Trailing(_Indices):
    """Down from a table's last index in equal strides.

    Raises:
        ValueError: If `steps` is below 1 or above the table's length.

    Examples:
        >>> from modkit.diffusion.schedules import Linear
        >>> Trailing(Linear(num=1000))(4) * 1000 - 1  # indices, and -1 for x_0
        tensor([999., 749., 499., 249.,  -1.], dtype=torch.float64)
    """

    def choose(self, num: int, step: Tensor) -> Tensor:
        """The last index, and then equal strides down."""
        return torch.round(num - step * (num / len(step))) - 1


class Leading(_Indices):
    """Up from a table's first index in equal strides of `num // steps`.

    The last index is left out unless all are visited, and a grid whose steps do not divide the table ends well below
    it: 600 of 1000 steps begin at t = .6.

    Raises:
        ValueError: If `steps` is below 1 or above the table's length.

    Examples:
        >>> from modkit.diffusion.schedules import Linear
        >>> Leading(Linear(num=1000))(4) * 1000 - 1
        tensor([750., 500., 250.,   0.,  -1.], dtype=torch.float64)
    """

    def choose(self, num: int, step: Tensor) -> Tensor:
        """The first index, reached by equal strides."""
        return (len(step) - 1 - step) * (num // len(step))


class Linspace(_Indices):
    """Even between a table's ends, both of which are visited.

    Raises:
        ValueError: If `steps` is below 1 or above the table's length.

    Examples:
        >>> from modkit.diffusion.schedules import Linear
        >>> Linspace(Linear(num=1000))(4) * 1000 - 1
        tensor([999., 666., 333.,   0.,  -1.], dtype=torch.float64)
    """

    def choose(self, num: int, step: Tensor) -> Tensor:
        """Both ends, and what is evenly between them."""
        return torch.linspace(num - 1, 0, len(step), dtype=step.dtype, device="cpu").round()
