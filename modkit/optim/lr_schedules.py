"""Learning-rate schedules over a stage of `steps` steps: a factor on the rate of each group of parameters, at step k.

    warmup:    (k + 1) / (warmup + 1)                      k < warmup
    constant:  1
    linear:    1 - (1 - floor) u                           u = (k - warmup) / (steps - warmup), at most 1
    cosine:    floor + (1 - floor) (1 + cos(pi u)) / 2     (Loshchilov and Hutter, 2017, eq. 5)
    inverse-root:  1 / sqrt(max(k / hold, 1))              (Karras et al., 2024, eq. 67), times that of a warmup

References:
    SGDR: Stochastic Gradient Descent with Warm Restarts (Loshchilov and Hutter, 2017), https://arxiv.org/abs/1608.03983
    Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024),
    https://arxiv.org/abs/2312.02696
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, TypeAlias

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from modkit.types import PositiveInt, Range, checked

__all__ = ["constant", "cosine", "inverse_root", "linear"]

Steps: TypeAlias = Annotated[int, "Number of steps over which the rate rises linearly.", Range(0)]
Share: TypeAlias = Annotated[float, "Share of the rate at the end of the stage, in [0, 1].", Range(0, 1)]


@checked
def constant(optimizer: Optimizer, steps: PositiveInt, *, warmup: Steps = 0) -> LRScheduler:
    """A constant rate, after a warmup.

    Raises:
        ValueError: If a number is out of range.
    """
    return _make_schedule(optimizer, steps, warmup, 1.0, lambda u: 1.0)


@checked
def cosine(optimizer: Optimizer, steps: PositiveInt, *, warmup: Steps = 0, floor: Share = 0.0) -> LRScheduler:
    """Half a period of a cosine from the full rate to the share `floor` of it, after a warmup.

    Raises:
        ValueError: If a number is out of range.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = cosine(optimizer, 2)
        >>> for _ in range(2):
        ...     print(schedule.get_last_lr())
        ...     optimizer.step()
        ...     schedule.step()
        [1.0]
        [0.5]
    """
    return _make_schedule(optimizer, steps, warmup, floor, lambda u: (1 + math.cos(math.pi * u)) / 2)


@checked
def inverse_root(
    optimizer: Optimizer,
    steps: PositiveInt,
    *,
    warmup: Steps = 0,
    hold: Annotated[int, "Number of steps before the rate falls, those of the warmup included.", Range(1)] = 1000,
) -> LRScheduler:
    """A rate that falls with the root of the number of steps, whatever the length of the stage, after a warmup.

    Raises:
        ValueError: If a number is out of range.

    Examples:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = inverse_root(optimizer, 5, hold=1)
        >>> for _ in range(4):
        ...     optimizer.step()
        ...     schedule.step()
        >>> schedule.get_last_lr()
        [0.5]
    """
    return _add_warmup(optimizer, warmup, lambda step: 1 / math.sqrt(max(step / hold, 1.0)))


@checked
def linear(optimizer: Optimizer, steps: PositiveInt, *, warmup: Steps = 0, floor: Share = 0.0) -> LRScheduler:
    """A linear decay from the full rate to the share `floor` of it, after a warmup.

    Raises:
        ValueError: If a number is out of range.
    """
    return _make_schedule(optimizer, steps, warmup, floor, lambda u: 1 - u)


def _make_schedule(
    optimizer: Optimizer, steps: int, warmup: int, floor: float, shape: Callable[[float], float]
) -> LRScheduler:
    """Makes a schedule that warms up and then follows `shape`, which falls from 1 to 0 over [0, 1], down to `floor`."""

    def factor(step: int) -> float:
        u = min(max(step - warmup, 0) / max(steps - warmup, 1), 1.0)
        return floor + (1 - floor) * shape(u)

    return _add_warmup(optimizer, warmup, factor)


def _add_warmup(optimizer: Optimizer, warmup: int, factor: Callable[[int], float]) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: min((step + 1) / (warmup + 1), 1.0) * factor(step))
