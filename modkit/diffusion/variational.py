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

The sum is estimated without bias from one time a draw. Nine tenths of the times are drawn in proportion to the terms of
white data of unit variance, whose |x_0 - x_0-hat|^2 is d / (1 + SNR(t)), and one tenth to those of a network that errs
by the same in eps at each time, whose |x_0 - x_0-hat|^2 goes with 1 / SNR(t); without a table this means uniformly in
log(1 + SNR) and in log SNR. Where hardly any signal is left, white data have no terms, but such a network may have half
of the sum in the last step of a table. The tenth costs little where there are none: the standard error is up to 1.1
times as large for points of the plane, 1.2 to 1.4 times for pictures.

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
from modkit.diffusion.schedules import LEAST_SIGNAL, find_noise_range
from modkit.kinds import Schedule
from modkit.precision import find_widest, widen
from modkit.rng import Rng
from modkit.types import Denoised

__all__ = ["variational_bound", "weigh_errors"]

_OF_EPS = 0.1  # share of the draws that are for errors of eps
_NEWTON = 12  # steps on a convex function, from its higher end: to rounding from levels of 1e-6 to 1e6

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


def weigh_errors(schedule: Schedule, u: Tensor) -> tuple[Tensor, Tensor]:
    """Draws times of the bound, and the weights of squared errors of x_0 there, in nats, each `n`.

    The mean over draws of weight and error is the sum of the steps' KL, without the first step, with the posterior's
    own variance. A table of one index has no other step than the first, whose weight is returned.

    Args:
        schedule: Signal and noise over time.
        u: What the times are drawn by, `n`, float64, in [0, 1).

    Examples:
        An error of 1 at each time costs half the highest SNR:

        >>> from modkit.diffusion.schedules import EDM
        >>> t, weight = weigh_errors(EDM(sigma_min=0.1), (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000)
        >>> print(f"{weight.mean():.1f}")
        50.0
    """
    grid = _find_grid(schedule, 0.0)
    if schedule.num is None:
        return _draw_time(schedule, grid, u)
    if len(grid) == 1:
        return grid.expand(len(u)), snr(schedule.scales(grid)).expand(len(u)) / 2
    t, s, share = _draw_step(schedule, grid, u)
    return t, _compute_gain(schedule, t, s) / share


def _find_grid(schedule: Schedule, least: float) -> Tensor:
    """Finds the times of a table, `n`, ascending, without levels below `least`; without a table, the end times."""
    if schedule.num is None:
        low, high = find_noise_range(schedule)
        ends = [max(low, least), high] if least < high else [high]
        return schedule.time(torch.tensor(ends, dtype=torch.float64, device="cpu"))
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
    """Estimates the sum of the other steps' KL from one time, drawn by `u`, `b`, in [0, 1)."""
    if schedule.num is None:
        t, weight = _draw_time(schedule, grid, u)
        error = widen(x_0) - denoise(add_noise(x_0, eps, schedule.scales(t)), t).x_0
        return move(weight, x_0, find_widest(x_0.device)) * _sum_squares(error)
    t, s, share = _draw_step(schedule, grid, u)
    x_0_hat, v = denoise(add_noise(x_0, eps, schedule.scales(t)), t)
    return _compute_kl(schedule, widen(x_0) - x_0_hat, v, t, s) / move(share, x_0, find_widest(x_0.device))


def _draw_time(schedule: Schedule, ends: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Draws a time between two `ends` by `u`, `b`; returns it and the weight of a squared error of x_0 there."""
    level, density = _draw_ratio(snr(schedule.scales(ends)), u)
    return schedule.time(torch.rsqrt(level)), 1 / (2 * density)


def _draw_step(schedule: Schedule, grid: Tensor, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draws a step of a table but the first by `u`, `b`; returns t, s and its probability."""
    share = _share_steps(snr(schedule.scales(grid)))
    step = torch.searchsorted(share.cumsum(0), u, right=True).clamp(max=len(share) - 1)
    return grid[step + 1], grid[step], share[step]


def _share_steps(ratios: Tensor) -> Tensor:
    """The probability with which each step but the first is drawn, given the SNR of a table, `n`."""
    gained, after = -ratios.diff(), ratios[1:].clamp_min(LEAST_SIGNAL**2)
    white, eps = gained / (1 + after), gained / after
    return (1 - _OF_EPS) * white / white.sum() + _OF_EPS * eps / eps.sum()


def _draw_ratio(ends: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Draws an SNR between two `ends`, the highest first, by `u`, `b`; returns it and its probability density."""
    high, low = torch.log(ends.clamp_min(LEAST_SIGNAL**2))
    top = _compute_softplus(high)
    white, eps = (1 - _OF_EPS) / (top - _compute_softplus(low)), _OF_EPS / (high - low)
    log_ratio = high.expand(len(u))
    for _ in range(_NEWTON):
        excess = white * (top - _compute_softplus(log_ratio)) + eps * (high - log_ratio) - u
        log_ratio = log_ratio + excess / (white * torch.sigmoid(log_ratio) + eps)
    ratio = torch.exp(log_ratio)
    return ratio, white / (1 + ratio) + eps / ratio


def _compute_softplus(log_ratio: Tensor) -> Tensor:
    """log(1 + SNR)."""
    return torch.logaddexp(log_ratio, torch.zeros_like(log_ratio))


def _compute_kl(schedule: Schedule, error: Tensor, v: Tensor | None, t: Tensor, s: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x_0) || p(x_s | x_t)), `b`, given the `error` of x_0-hat."""
    if v is None:
        return move(_compute_gain(schedule, t, s), error, find_widest(error.device)) * _sum_squares(error)
    scales_t, scales_s = schedule.scales(t), schedule.scales(s)
    share = tau(scales_t, scales_s)
    small, large = scales_s[1] ** 2 * share, scales_t[1] ** 2 * share
    logvar = interpolate_logvar(small, large, v)
    log_ratio = broadcast(small.log(), logvar) - logvar
    return _sum(gaussian_kl(broadcast(scales_s[0] * share, error) * error, log_ratio, logvar))


def _compute_gain(schedule: Schedule, t: Tensor, s: Tensor) -> Tensor:
    """The weight of a squared error of x_0 in the step from t to s: half of what SNR gains."""
    return (snr(schedule.scales(s)) - snr(schedule.scales(t))) / 2


def _sum_squares(x: Tensor) -> Tensor:
    return _sum(widen(x) ** 2)


def _sum(x: Tensor) -> Tensor:
    """Sums over each sample's elements, `b`, float64."""
    return x.reshape(len(x), -1).sum(1, dtype=find_widest(x.device))
