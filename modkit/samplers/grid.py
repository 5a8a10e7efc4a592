"""Grids: the times that a sampler visits, and the base class of samplers on a grid.

With a table, the times are some of its indices; otherwise they are those of EDM's noise levels sigma_t / alpha_t:

    sigma_i = (sigma_max^(1/rho) + i / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho,    sigma_n = 0

The scales of a grid are computed once, so that the scalar arithmetic of a step uses Python floats, which are float64.

Shape letters: n times.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from modkit.diffusion.schedules import find_noise_range
from modkit.kinds import Denoise, Schedule
from modkit.types import Denoised, TensorType

__all__ = ["GridSampler", "Spacing", "choose_times", "space_noise_levels"]

_MOST = 100_000  # steps

Spacing: TypeAlias = Literal["leading", "trailing", "linspace"]


class GridSampler:
    """A sampler on a fixed grid of times; a subclass adds `step`.

    Args:
        schedule: The schedule, which must not change afterwards.
        x: Type of a sample; predictions are clipped to its range if it has one.
        times: The times visited, `n`, float64, descending, the last 0.

    Examples:
        A sampler that returns the first prediction of x_0, in one step:

        >>> from modkit.diffusion.schedules import Cosine
        >>> class OneStep(GridSampler):
        ...     def step(self, denoise, x_t, t, s, state, rng):
        ...         return self.predict(denoise, x_t, t).x_0, None
        >>> OneStep(Cosine(), TensorType((1,)), torch.tensor([1.0, 0.0], dtype=torch.float64)).times()
        tensor([1., 0.], dtype=torch.float64)
    """

    def __init__(self, schedule: Schedule, x: TensorType, times: Tensor) -> None:
        self.schedule = schedule
        self.x = x
        self._times = times
        alpha, sigma = schedule.scales(times)
        pairs = zip(alpha.tolist(), sigma.tolist(), strict=True)
        self._scales: dict[float, tuple[float, float]] = dict(zip(times.tolist(), pairs, strict=True))

    def times(self) -> Tensor:
        """The times visited, `n`, float64 on the CPU, descending, the last 0."""
        return self._times.clone()

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """x_t at the first time, `sigma_t eps` with standard normal `eps`, `b ...`: noise without signal."""
        return self.scales(t)[1] * eps

    def scales(self, t: Tensor) -> tuple[float, float]:
        """`(alpha_t, sigma_t)` at a scalar `t`, whether on the grid or not."""
        known = self._scales.get(float(t))
        if known is not None:
            return known
        alpha, sigma = self.schedule.scales(t)
        return float(alpha), float(sigma)

    def predict(self, denoise: Denoise, x_t: Tensor, t: Tensor) -> Denoised:
        """Calls the denoiser and clips its x_0 to the range of `x`, if it has one."""
        denoised = denoise(x_t, t)
        if self.x.range is None:
            return denoised
        return Denoised(denoised.x_0.clamp(*self.x.range), denoised.v)


def choose_times(owner: object, schedule: Schedule, steps: int, spacing: Spacing) -> Tensor:
    """Chooses the times of `steps` steps, `steps + 1`, the last 0.

    With a table these are times of its indices: `trailing` counts down from the last index in equal strides; `leading`
    counts up from the first, and so leaves out the last unless it visits all; `linspace` includes both ends. Without a
    table they are those of `space_noise_levels` with rho = 7.

    References:
        Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2023), table 2,
        https://arxiv.org/abs/2305.08891

    Raises:
        ValueError: If `steps` is below 1 or above the table's length, or the spacing is unknown; the message names the
            class of `owner`.

    Examples:
        >>> from modkit.diffusion.schedules import Linear
        >>> choose_times(None, Linear(num=1000), 4, "leading") * 1000 - 1  # indices, and -1 for x_0
        tensor([750., 500., 250.,   0.,  -1.], dtype=torch.float64)
    """
    if schedule.num is None:
        return space_noise_levels(owner, schedule, steps)
    name, num = type(owner).__name__, schedule.num
    if not 1 <= steps <= num:
        raise ValueError(f"{name} expects steps in [1, {num}] on a table of {num}, got {steps}")
    if spacing not in _SPACINGS:
        raise ValueError(f"{name} expects spacing to be one of {', '.join(_SPACINGS)}, got {spacing!r}")
    indices = _SPACINGS[spacing](num, torch.arange(steps, dtype=torch.float64, device="cpu"))
    return torch.cat([(indices + 1) / num, indices.new_zeros(1)])


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

    Where `sigma_min` or `sigma_max` is None, the schedule's own is used.

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
    if not 1 <= steps <= _MOST:
        raise ValueError(f"{name} expects steps in [1, {_MOST}], got {steps}")
    if rho <= 0:
        raise ValueError(f"{name} expects rho above 0, got {rho}")
    if not 0 < low < high < float("inf"):
        raise ValueError(f"{name} expects 0 < sigma_min < sigma_max, got {low:g} and {high:g}")
    if schedule.num is not None and high > last * (1 + 1e-9):
        raise ValueError(f"{name} expects sigma_max of at most {last:g}, the schedule's, got {high:g}")
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64, device="cpu")
    sigma = (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return torch.cat([schedule.time(sigma), sigma.new_zeros(1)])


_SPACINGS: dict[str, Callable[[int, Tensor], Tensor]] = {
    "leading": lambda num, index: (len(index) - 1 - index) * (num // len(index)),
    "trailing": lambda num, index: torch.round(num - index * (num / len(index))) - 1,
    "linspace": lambda num, index: torch.linspace(num - 1, 0, len(index), dtype=index.dtype, device="cpu").round(),
}
"""The indices visited in a table of `num`, given the numbers of the steps."""
