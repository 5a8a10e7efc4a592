r"""Grids of noise levels sigma_t / alpha_t: as EDM spaces them, evenly in their logarithm, or from a list.

    sigma_i = (sigma_max^(1/rho) + i / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,    sigma_n = 0

As rho grows, the levels become even in ln sigma, and so in the logarithm of the signal-to-noise ratio.

The last of these steps, from sigma_min to 0, changes next to nothing, but costs an evaluation. With fewer than 18
steps, EDM's own number, n + 1 levels are therefore spaced down to sigma_min, and the last of them is 0. On the exact
flow of six mixtures (deviation .5, components of .005 to .4) this ends closer for 267 of 288 combinations of mixture,
number of steps from 2 to 17, and Euler, Heun or 2M: 8 steps of Heun on a ring end at an rmse of .10 instead of .13,
two at .35 instead of 41. From 18 steps on the two hardly differ, and the published grid is kept.

Shape letters: n times.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor

from modkit.diffusion.schedules import Bounded, find_noise_range, scale_levels
from modkit.grids.steps import check_steps
from modkit.kinds import Schedule
from modkit.types import TensorType

__all__ = ["Karras", "Listed", "LogSNR", "space_levels", "space_noise_levels"]

_FULL = 18  # steps from which on the published grid is used: EDM's own number on CIFAR-10
_ALIGNED = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.38, 0.234, 0.113)  # for SDXL, in 10 steps

Lowest: TypeAlias = Annotated[
    float | Literal["auto"] | None,
    "Lowest noise level above 0; `auto` is the schedule's, which with fewer than 18 steps is left out in favour of 0; "
    "null is the schedule's, always visited.",
]

Highest: TypeAlias = Annotated[
    float | Literal["auto"] | None,
    "Highest noise level; `auto` is the schedule's own if it states one, otherwise 160 deviations of the data (80 "
    "where that is unknown) or less if the schedule ends lower; null is the schedule's highest.",
]


class Karras:
    """EDM's noise levels: dense at the low end.

    With fewer than 18 steps this is not the published grid unless `sigma_min` is given, or null: the step from the
    lowest level to 0 is left out in favour of the others, see `modkit.grids.levels`.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), eq. 5,
        https://arxiv.org/abs/2206.00364

    Args:
        rho: How much denser the low end is; 1 spaces the levels evenly.

    Raises:
        ValueError: If `steps` or `rho` is out of range, or the schedule does not reach the levels.

    Examples:
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM(sigma_min=0.002, sigma_max=80.0)
        >>> [f"{level:.3g}" for level in schedule.scales(Karras(schedule)(4))[1].tolist()]
        ['80', '17.5', '2.52', '0.17', '0']
    """

    noise_levels = True

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType | None = None,
        *,
        rho: float = 7.0,
        sigma_min: Lowest = "auto",
        sigma_max: Highest = "auto",
    ) -> None:
        self.schedule = schedule
        self.rho = rho
        self.sigma_min, self.sigma_max = sigma_min, sigma_max
        self._x = x

    def __call__(self, steps: int) -> Tensor:
        """The times of `steps` steps, `steps + 1`, float64 on the CPU, descending, the last 0."""
        low, high = _find_ends(self.schedule, self._x)
        short = self.sigma_min == "auto" and 1 <= steps < _FULL
        times = space_noise_levels(
            self,
            self.schedule,
            steps + short,
            rho=self.rho,
            sigma_min=low if self.sigma_min == "auto" else self.sigma_min,
            sigma_max=high if self.sigma_max == "auto" else self.sigma_max,
        )
        return torch.cat([times[:steps], times[-1:]])


class LogSNR(Karras):
    """Even in the logarithm of the signal-to-noise ratio: each noise level is the same fraction of the one before it.

    References:
        DPM-Solver (Lu et al., 2022), section 4.1, https://arxiv.org/abs/2206.00927

    Raises:
        ValueError: If `steps` is out of range, or the schedule does not reach the levels.

    Examples:
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM(sigma_max=80.0)
        >>> [f"{level:.3g}" for level in schedule.scales(LogSNR(schedule, sigma_min=0.8)(3))[1].tolist()]
        ['80', '8', '0.8', '0']
    """

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType | None = None,
        *,
        sigma_min: Lowest = "auto",
        sigma_max: Highest = "auto",
    ) -> None:
        super().__init__(schedule, x, rho=math.inf, sigma_min=sigma_min, sigma_max=sigma_max)


class Listed:
    """A list of noise levels; for another number of steps it is interpolated, evenly in ln sigma between neighbours.

    The default was optimised for latents of unit deviation, on Stable Diffusion XL.

    References:
        Align Your Steps (Sabour et al., 2024), section 4, https://arxiv.org/abs/2404.14507

    Args:
        levels: The levels sigma_t / alpha_t, descending, each above 0; 0 follows. One step needs one level or more, and
            any other number two.

    Raises:
        ValueError: If there are none, they do not descend to above 0, or the schedule does not reach them.

    Examples:
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM(sigma_max=80.0)
        >>> [f"{level:.3g}" for level in schedule.scales(Listed(schedule, levels=[40.0, 10.0])(3))[1].tolist()]
        ['40', '20', '10', '0']
    """

    noise_levels = True

    def __init__(self, schedule: Schedule, x: TensorType | None = None, *, levels: list[float] | None = None) -> None:
        self.schedule = schedule
        self.levels = list(_ALIGNED if levels is None else levels)
        if not self.levels or not all(b < a < math.inf for a, b in pairwise([*self.levels, 0.0])):
            raise ValueError(f"Listed expects levels that descend to one above 0, got {levels}")

    def __call__(self, steps: int) -> Tensor:
        """The times of `steps` steps, `steps + 1`, float64 on the CPU, descending, the last 0."""
        check_steps(self, steps, self.schedule, of_table=False)
        _check_reach(self, self.schedule, find_noise_range(self.schedule), self.levels[-1], self.levels[0])
        logs = torch.tensor(self.levels, dtype=torch.float64, device="cpu").log()
        if steps != len(logs):
            place = torch.linspace(0, len(logs) - 1, steps, dtype=torch.float64, device="cpu")
            index = place.long().clamp(max=max(len(logs) - 2, 0))
            logs = torch.lerp(logs[index], logs[(index + 1).clamp(max=len(logs) - 1)], place - index)
            if not (logs.diff() < 0).all():
                raise ValueError(f"Listed expects two levels or more for {steps} steps, got {self.levels}")
        return torch.cat([self.schedule.time(logs.exp()), logs.new_zeros(1)])


def space_noise_levels(
    owner: object,
    schedule: Schedule,
    steps: int,
    *,
    rho: float = 7.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> Tensor:
    """Spaces `steps` noise levels as EDM does and returns their times, `steps + 1`, the last 0.

    Where `sigma_min` or `sigma_max` is None, the schedule's own is used; an infinite `rho` spaces ln sigma evenly.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), eq. 5,
        https://arxiv.org/abs/2206.00364

    Raises:
        ValueError: If `steps` is outside [1, 100000], `rho` is not positive, the ends are not
            0 < sigma_min < sigma_max, or the schedule does not reach them; the message names the class of `owner`.

    Examples:
        >>> from modkit.diffusion.schedules import EDM
        >>> space_noise_levels(None, EDM(sigma_max=80.0), 3, rho=1.0, sigma_min=20.0)
        tensor([1.0000, 0.6250, 0.2500, 0.0000], dtype=torch.float64)
    """
    name = type(owner).__name__
    first, last = find_noise_range(schedule)
    low, high = first if sigma_min is None else sigma_min, last if sigma_max is None else sigma_max
    check_steps(owner, steps, schedule, of_table=False)
    if rho <= 0:
        raise ValueError(f"{name} expects rho above 0, got {rho}")
    if not 0 < low < high < float("inf"):
        raise ValueError(f"{name} expects 0 < sigma_min < sigma_max, got {low:g} and {high:g}")
    _check_reach(owner, schedule, (first, last), low, high)
    sigma = space_levels(high, low, steps, rho=rho)
    return torch.cat([schedule.time(sigma), sigma.new_zeros(1)])


def space_levels(high: float, low: float, num: int, *, rho: float) -> Tensor:
    """Spaces noise levels from `high` to `low` as EDM does, `num`, float64 on the CPU.

    `low` may be 0 unless `rho` is infinite, which spaces ln sigma evenly.

    Examples:
        >>> space_levels(8.0, 1.0, 3, rho=3.0)
        tensor([8.0000, 3.3750, 1.0000], dtype=torch.float64)
    """
    ramp = torch.linspace(0, 1, num, dtype=torch.float64, device="cpu")
    if math.isinf(rho):
        return torch.exp(math.log(high) + ramp * math.log(low / high))
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def _check_reach(owner: object, schedule: Schedule, ends: tuple[float, float], low: float, high: float) -> None:
    """Checks that a table, which has levels between two ends, has those from `low` to `high`."""
    if schedule.num is None:
        return
    name, (first, last) = type(owner).__name__, ends
    if high > last * (1 + 1e-9):
        raise ValueError(f"{name} expects sigma_max of at most {last:g}, the schedule's, got {high:g}")
    if low < first * (1 - 1e-9):
        expected = f"sigma_min of at least {first:g}, the level of the table's first index"
        raise ValueError(f"{name} expects {expected}, got {low:g}")


def _find_ends(schedule: Schedule, x: TensorType | None) -> tuple[float, float]:
    """Finds the levels between which samples of `x` are drawn, where the grid is given none."""
    low, high = find_noise_range(schedule)
    if schedule.num is None and isinstance(schedule, Bounded):
        return low, high
    enough = scale_levels(x)[1]
    return low, min(high, enough) if enough > low else high
