r"""The variational bound on log p(x_0) of the chain that undoes noise step by step, for any denoiser and schedule.

    log p(x_0) >= E log p(x_0 | x_1) - sum_{t > 1} E KL(q(x_s | x_t, x_0) || p(x_s | x_t)) - KL(q(x_T | x_0) || p(x_T))

Of a table the chain has one step an index, its samplers' ancestral one: p(x_s | x_t) is q(x_s | x_t, x_0-hat), or of a
learned variance, and p(x_T) = N(0, sigma_T^2 I). With the posterior's own variance a step's KL and, of a schedule
without a table, the limit of infinitely many steps are

    1/2 (SNR(s) - SNR(t)) |x_0 - x_0-hat|^2        1/2 |x_0 - x_0-hat|^2 dSNR        SNR = (alpha / sigma)^2

The first step is a density here, not 8-bit pixels: p(x_0 | x_1) = N(x_0-hat, (sigma_1 / alpha_1)^2 I), which is right
where the data are smooth on the scale of the least noise (a table's first index, else the schedule's `sigma_min`). Of
dequantised data the chain ends earlier, at noise like theirs: a denoiser trained on the levels knows nothing finer.

The sum is estimated, without bias, from times drawn in proportion to what it would be of white data of unit variance,
whose |x_0 - x_0-hat|^2 is d / (1 + SNR(t)); hence, without a table, evenly in log(1 + SNR).

Shape letters: b batch, n table.

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), eq. 5, https://arxiv.org/abs/2006.11239
    Variational Diffusion Models (Kingma et al., 2021), eq. 11, 14 and 18, https://arxiv.org/abs/2107.00630
    Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), eq. 15: the learned variance,
    https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from modkit.diffusion.schedules import broadcast, sigma_ends, tau
from modkit.kinds import Schedule
from modkit.precision import widen
from modkit.rng import Rng
from modkit.samplers.ancestral import interpolated_logvar
from modkit.types import Denoised

__all__ = ["variational_bound"]

DenoiseRows: TypeAlias = Callable[[Tensor, Tensor], Denoised]
"""Predicts x_0 from `x_t` at times `t`, `b`, float64."""


def variational_bound(
    schedule: Schedule, denoise: DenoiseRows, x_0: Tensor, num: int, rng: Rng, *, grain: float = 0.0
) -> Tensor:
    """The bound in nats a sample, `b`, float64: a mean over draws.

    Args:
        schedule: Signal and noise over time.
        denoise: Predicts x_0 from `x_t`, `b ...`, at times `b`; called twice a draw.
        x_0: Samples, `b ...`.
        num: Draws a sample, of one noise for the first step and of one time and noise for the others.
        rng: Source of the draws.
        grain: Width of the uniform noise in x_0; the chain's last noise level is at least that noise's deviation.
    """
    grid = _grid(schedule, grain / math.sqrt(12)).to(x_0.device)
    kl = _prior_kl(schedule, x_0, grid[-1:])
    means = []
    for index in range(num):
        draw = rng.at(index)
        u = (index + draw.uniform("time", kl.new_empty(len(x_0)))) / num
        means.append(_first(schedule, denoise, x_0, grid, draw.normal("first", x_0)))
        if len(grid) > 1:
            means[-1] = means[-1] - _steps(schedule, denoise, x_0, grid, u, draw.normal("eps", x_0))
    return torch.stack(means).mean(0) - kl


def _grid(schedule: Schedule, least: float) -> Tensor:
    """The times of a table, `n`, ascending; else those of the least and of the most noise; levels below `least` not."""
    if schedule.num is None:
        low, high = sigma_ends(schedule)
        return schedule.time(torch.tensor([min(max(low, least), high), high], dtype=torch.float64, device="cpu"))
    times = torch.arange(1, schedule.num + 1, dtype=torch.float64, device="cpu") / schedule.num
    kept = _snr(schedule, times) * least**2 <= 1
    kept[-1] = True
    return times[kept]


def _prior_kl(schedule: Schedule, x_0: Tensor, t: Tensor) -> Tensor:
    """KL(N(alpha x_0, sigma^2 I) || N(0, sigma^2 I)) at the last time."""
    return _snr(schedule, t) / 2 * _squared(x_0)


def _first(schedule: Schedule, denoise: DenoiseRows, x_0: Tensor, grid: Tensor, eps: Tensor) -> Tensor:
    """Log p(x_0 | x_1)."""
    t = grid[:1].expand(len(x_0))
    x_0_hat, v = denoise(_noised(schedule, x_0, t, eps), t)
    scales_1 = schedule.scales(grid[:1])
    logvar = broadcast(2 * torch.log(scales_1[1] / scales_1[0]), x_0)
    if v is not None and schedule.num is not None and len(grid) == schedule.num > 1:
        least = scales_1[1] ** 2 * tau(schedule.scales(grid[1:2]), scales_1)  # the first index's own is 0
        logvar = interpolated_logvar(least, scales_1[1] ** 2, v)
    each = (widen(x_0) - x_0_hat) ** 2 * torch.exp(-logvar) + logvar + math.log(2 * math.pi)
    return -_summed(each) / 2


def _steps(schedule: Schedule, denoise: DenoiseRows, x_0: Tensor, grid: Tensor, u: Tensor, eps: Tensor) -> Tensor:
    """An estimate of the sum of the other steps' KL, from the time at a share `u`, `b`, of white data's."""
    snr = _snr(schedule, grid)
    if schedule.num is None:
        high, low = torch.log1p(snr)
        level = torch.expm1(high + u * (low - high))
        t = schedule.time(torch.rsqrt(level))
        error = widen(x_0) - denoise(_noised(schedule, x_0, t, eps), t).x_0
        integral: Tensor = (high - low) / 2 * (1 + level) * _squared(error)
        return integral
    white = (snr[:-1] - snr[1:]) / (1 + snr[1:])
    share = white / white.sum()
    step = torch.searchsorted(share.cumsum(0), u, right=True).clamp(max=len(share) - 1)
    t, s = grid[step + 1], grid[step]
    x_0_hat, v = denoise(_noised(schedule, x_0, t, eps), t)
    return _kl(schedule, widen(x_0) - x_0_hat, v, t, s) / share[step]


def _kl(schedule: Schedule, error: Tensor, v: Tensor | None, t: Tensor, s: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)) where x_0-hat is off by `error`."""
    if v is None:
        kl: Tensor = (_snr(schedule, s) - _snr(schedule, t)) / 2 * _squared(error)
        return kl
    scales_t, scales_s = schedule.scales(t), schedule.scales(s)
    share = tau(scales_t, scales_s)
    small, large = scales_s[1] ** 2 * share, scales_t[1] ** 2 * share
    logvar = interpolated_logvar(small, large, v)
    log_ratio = broadcast(small.log(), logvar) - logvar
    moved = broadcast(scales_s[0] * share, error) * error
    return _summed(log_ratio.exp() - 1 - log_ratio + moved**2 * torch.exp(-logvar)) / 2


def _noised(schedule: Schedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    alpha_t, sigma_t = schedule.scales(t)
    return broadcast(alpha_t, x_0) * x_0 + broadcast(sigma_t, x_0) * eps


def _snr(schedule: Schedule, t: Tensor) -> Tensor:
    alpha_t, sigma_t = schedule.scales(t)
    return (alpha_t / sigma_t) ** 2


def _squared(x: Tensor) -> Tensor:
    return _summed(widen(x) ** 2)


def _summed(x: Tensor) -> Tensor:
    """The sum over each sample's elements, `b`, float64."""
    return x.reshape(len(x), -1).sum(1, dtype=torch.float64)
