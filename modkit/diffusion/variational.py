r"""The variational bound on log p(x_0) of the chain that removes noise step by step, for any denoiser and schedule.

    log p(x_0) >= E log p(x_0 | x_1) - sum_{t > 1} E KL(q(x_s | x_t, x_0) || p(x_s | x_t)) - KL(q(x_T | x_0) || p(x_T))

With a table, the chain has one step per index, that of ancestral sampling: p(x_s | x_t) is q(x_s | x_t, x_0-hat), or a
Gaussian with the learned variance, and p(x_T) = N(0, sigma_T^2 I). With the posterior's own variance, the KL of a step
and, for a schedule without a table, the limit of infinitely many steps are

    1/2 (SNR(s) - SNR(t)) |x_0 - x_0-hat|^2        1/2 |x_0 - x_0-hat|^2 dSNR        SNR = (alpha / sigma)^2

p(x_0 | x_1) is a density, not a distribution of 8-bit pixels: N(x_0-hat, (sigma_1 / alpha_1)^2 I), which is exact
where the data are smooth on the scale of the least noise (at the first index of a table, otherwise the schedule's
`sigma_min`). For dequantized data the chain ends earlier, at a noise level like that of the dequantization: a denoiser
trained on discrete levels has learned nothing finer.

The sum is estimated without bias from times drawn in proportion to the terms of white data of unit variance, whose
|x_0 - x_0-hat|^2 is d / (1 + SNR(t)); without a table this means uniformly in log(1 + SNR).

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

from modkit.diffusion.gaussian import add_noise, broadcast, gaussian_kl, interpolate_logvar, move, snr, tau
from modkit.diffusion.schedules import find_noise_range
from modkit.kinds import Schedule
from modkit.precision import find_widest, widen
from modkit.rng import Rng
from modkit.types import Denoised

__all__ = ["variational_bound"]

DenoiseRows: TypeAlias = Callable[[Tensor, Tensor], Denoised]
"""Predicts x_0 from `x_t` at times `t`, `b`, float64."""


def variational_bound(
    schedule: Schedule, denoise: DenoiseRows, x_0: Tensor, num: int, rng: Rng, *, grain: float = 0.0
) -> Tensor:
    """Estimates the lower bound on log p(x_0) in nats a sample, `b`, float64, averaged over `num` draws.

    Args:
        schedule: Signal and noise over time.
        denoise: Predicts x_0 from `x_t`, `b ...`, at times `b`; called twice per draw.
        x_0: Samples, `b ...`.
        num: Number of draws: each takes one noise for the first step, and one time and one noise for the others.
        rng: Source of the draws.
        grain: Width of the uniform noise with which x_0 was dequantized; the last noise level of the chain is at least
            the standard deviation of that noise.

    Examples:
        With the exact denoiser of N(0, I) the bound is close to log p(x_0); at x_0 = 0 that is -log(2 pi) / 2 = -0.92:

        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM(sigma_min=0.1)
        >>> def denoise(x_t, t):
        ...     alpha, sigma = (broadcast(scale, x_t) for scale in schedule.scales(t))
        ...     return Denoised(alpha * x_t / (alpha**2 + sigma**2))
        >>> bound = variational_bound(schedule, denoise, torch.zeros(20000, 1), 1, Rng(0))
        >>> print(f"{bound.mean():.1f}")
        -0.9
    """
    grid = _find_grid(schedule, grain / math.sqrt(12))
    kl = _compute_prior_kl(schedule, x_0, grid[-1:])
    means = []
    for index in range(num):
        draw = rng.at(index)
        u = (index + draw.uniform("time", torch.empty(len(x_0), dtype=torch.float64, device="cpu"))) / num
        means.append(_estimate_first(schedule, denoise, x_0, grid, draw.normal("first", x_0)))
        if len(grid) > 1:
            means[-1] = means[-1] - _estimate_others(schedule, denoise, x_0, grid, u, draw.normal("eps", x_0))
    return torch.stack(means).mean(0) - kl


def _find_grid(schedule: Schedule, least: float) -> Tensor:
    """Finds the times of a table, `n`, ascending, without levels below `least`; without a table, the two end times."""
    if schedule.num is None:
        low, high = find_noise_range(schedule)
        return schedule.time(torch.tensor([min(max(low, least), high), high], dtype=torch.float64, device="cpu"))
    times = torch.arange(1, schedule.num + 1, dtype=torch.float64, device="cpu") / schedule.num
    keep = snr(schedule.scales(times)) * least**2 <= 1
    keep[-1] = True
    return times[keep]


def _compute_prior_kl(schedule: Schedule, x_0: Tensor, t: Tensor) -> Tensor:
    """KL(N(alpha x_0, sigma^2 I) || N(0, sigma^2 I)) at the last time."""
    return float(snr(schedule.scales(t))) / 2 * _sum_squares(x_0)


def _estimate_first(schedule: Schedule, denoise: DenoiseRows, x_0: Tensor, grid: Tensor, eps: Tensor) -> Tensor:
    """Estimates log p(x_0 | x_1)."""
    alpha_1, sigma_1 = _find_scales(schedule, grid[0])
    x_0_hat, v = denoise(add_noise(x_0, eps, (alpha_1, sigma_1)), grid[:1].expand(len(x_0)))
    logvar: float | Tensor = 2 * math.log(sigma_1 / alpha_1)
    if v is not None and schedule.num is not None and len(grid) == schedule.num > 1:
        second = _find_scales(schedule, grid[1])  # whose variance is used: that of the first index is 0
        logvar = interpolate_logvar(sigma_1**2 * tau(second, (alpha_1, sigma_1)), sigma_1**2, v)
    precision = torch.exp(-logvar) if isinstance(logvar, Tensor) else math.exp(-logvar)
    each = (widen(x_0) - x_0_hat) ** 2 * precision + logvar + math.log(2 * math.pi)
    return -_sum(each) / 2


def _find_scales(schedule: Schedule, t: Tensor) -> tuple[float, float]:
    alpha, sigma = schedule.scales(t)
    return float(alpha), float(sigma)


def _estimate_others(
    schedule: Schedule, denoise: DenoiseRows, x_0: Tensor, grid: Tensor, u: Tensor, eps: Tensor
) -> Tensor:
    """Estimates the sum of the other steps' KL from one time, at the share `u`, `b`, of the sum for white data."""
    ratios = snr(schedule.scales(grid))
    if schedule.num is None:
        high, low = torch.log1p(ratios)
        level = torch.expm1(high + u * (low - high))
        t = schedule.time(torch.rsqrt(level))
        error = widen(x_0) - denoise(add_noise(x_0, eps, schedule.scales(t)), t).x_0
        return move((high - low) / 2 * (1 + level), x_0, find_widest(x_0.device)) * _sum_squares(error)
    white = (ratios[:-1] - ratios[1:]) / (1 + ratios[1:])
    share = white / white.sum()
    step = torch.searchsorted(share.cumsum(0), u, right=True).clamp(max=len(share) - 1)
    t, s = grid[step + 1], grid[step]
    x_0_hat, v = denoise(add_noise(x_0, eps, schedule.scales(t)), t)
    return _compute_kl(schedule, widen(x_0) - x_0_hat, v, t, s) / move(share[step], x_0, find_widest(x_0.device))


def _compute_kl(schedule: Schedule, error: Tensor, v: Tensor | None, t: Tensor, s: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)), `b`, given the `error` of x_0-hat."""
    if v is None:
        gained = (snr(schedule.scales(s)) - snr(schedule.scales(t))) / 2
        return move(gained, error, find_widest(error.device)) * _sum_squares(error)
    scales_t, scales_s = schedule.scales(t), schedule.scales(s)
    share = tau(scales_t, scales_s)
    small, large = scales_s[1] ** 2 * share, scales_t[1] ** 2 * share
    logvar = interpolate_logvar(small, large, v)
    log_ratio = broadcast(small.log(), logvar) - logvar
    return _sum(gaussian_kl(broadcast(scales_s[0] * share, error) * error, log_ratio, logvar))


def _sum_squares(x: Tensor) -> Tensor:
    return _sum(widen(x) ** 2)


def _sum(x: Tensor) -> Tensor:
    """Sums over each sample's elements, `b`, float64."""
    return x.reshape(len(x), -1).sum(1, dtype=find_widest(x.device))
