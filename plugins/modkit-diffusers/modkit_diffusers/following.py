r"""How diffusers' schedulers follow one of modkit's schedules: their configuration, and the meaning of their timesteps.

    betas_i = 1 - alpha_i^2 / alpha_{i-1}^2     t = (timestep + 1) / num        where alpha_t^2 + sigma_t^2 = 1
    sigma = t                                   t = timestep / 1000             on the line x_t = (1 - t) x_0 + t eps

The first is a chain: that of the schedule's table, or without one of 1000 even times.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from modkit.kinds import Schedule

__all__ = ["Following", "follow_chain", "follow_line", "is_line"]

_TIMESTEPS = 1000  # diffusers' own, for schedules without a table
_CLOSE = 0.05  # relative difference of alpha_t: diffusers rounds betas, and near 1 little is left of 1 - beta


class Following(NamedTuple):
    """How a scheduler follows a schedule: a timestep is the time `(timestep + offset) / num`.

    Args:
        num: Timesteps of training.
        offset: Number added to a timestep.
        config: Configuration of the scheduler.
    """

    num: int
    offset: int
    config: Mapping[str, Any]


def follow_chain(name: str, schedule: Schedule) -> Following:
    """Follows a schedule that preserves variance, by the betas of its chain.

    Raises:
        ValueError: If the schedule does not preserve variance, or its betas come too near to 1 for diffusers' float32.
            The message names the scheduler.
    """
    num = schedule.num or _TIMESTEPS
    alpha, sigma = schedule.scales(torch.arange(num + 1, dtype=torch.float64) / num)
    variance = alpha**2 + sigma**2
    if not torch.allclose(variance, torch.ones_like(variance), rtol=0, atol=1e-6):
        ends = f"{float(variance.min()):g} to {float(variance.max()):g}"
        raise ValueError(
            f"{name} expects a schedule of alpha_t^2 + sigma_t^2 = 1, got {type(schedule).__name__}, where it is {ends}"
        )
    betas = 1 - (alpha[1:] / alpha[:-1]) ** 2
    rounded = torch.sqrt(torch.cumprod(1 - betas.float(), 0)).double()
    far = (rounded - alpha[1:]).abs() > _CLOSE * alpha[1:]
    if far.any():
        index = int(far.int().argmax())
        raise ValueError(
            f"{name} expects betas that float32 tells from 1, got {type(schedule).__name__}, whose alpha_t at t = "
            f"{(index + 1) / num:.3g} is {float(alpha[index + 1]):.3g}, and {float(rounded[index]):.3g} in float32"
        )
    return Following(num, 1, {"num_train_timesteps": num, "trained_betas": betas.tolist()})


def follow_line(name: str, schedule: Schedule) -> Following:
    """Follows the line from data to noise.

    Raises:
        ValueError: If the schedule is another. The message names the scheduler.
    """
    if not is_line(schedule):
        raise ValueError(f"{name} expects the schedule flow, x_t = (1 - t) x_0 + t eps, got {type(schedule).__name__}")
    return Following(_TIMESTEPS, 0, {"num_train_timesteps": _TIMESTEPS})


def is_line(schedule: Schedule) -> bool:
    """Returns whether a schedule is the line from data to noise."""
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    return all(torch.allclose(scale, line, rtol=0, atol=1e-6) for scale, line in zip(schedule.scales(t), (1 - t, t)))
