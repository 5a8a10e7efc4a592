r"""Ancestral sampling: each step draws x_s from the forward process's own posterior.

Between times s < t the forward process is `x_t = (alpha_t / alpha_s) x_s + noise`, so that given x_0

    q(x_s | x_t, x_0) = N(alpha_s tau x_0 + c x_t, sigma_s^2 tau I)
    c = alpha_t sigma_s^2 / (alpha_s sigma_t^2)
    tau = 1 - (alpha_t sigma_s / (alpha_s sigma_t))^2

With s one index of a table below t these are DDPM's posterior mean and beta_tilde; any two times will do, and no table
is needed.

Shape letters: b batch.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.diffusion.schedules import Scale, Scales, broadcast, tau
from modkit.kinds import Denoise, Schedule
from modkit.rng import Rng
from modkit.samplers.grid import GridSampler, spaced
from modkit.types import TensorType

__all__ = ["Ancestral", "Posterior", "interpolated_logvar", "posterior"]


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(mean, small I), and the two ends between which a model's variance lies.

    Args:
        mean: `b ...`.
        small: Its variance: beta_tilde, right where x_0 is certain; 0 at s = 0.
        large: Variance of x_t given x_s: beta, right where x_0 is white noise.
    """

    mean: Tensor
    small: Scale
    large: Scale


def posterior(x_t: Tensor, x_0: Tensor, scales_t: Scales, scales_s: Scales) -> Posterior:
    """The forward process's posterior of x_s given x_t and x_0, s < t.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), eq. 6 and 7, https://arxiv.org/abs/2006.11239

    Args:
        x_t: Current sample, `b ...`.
        x_0: Clean sample or its prediction, shape of `x_t`; gradients flow through both.
        scales_t: `(alpha_t, sigma_t)`, numbers or `b`; `sigma_t > 0`.
        scales_s: `(alpha_s, sigma_s)` at the target time.

    Returns:
        Mean and variances; the variances are numbers or `b`, float64, as the scales are.
    """
    alpha_t, sigma_t = scales_t
    alpha_s, sigma_s = scales_s
    share = tau(scales_t, scales_s)
    c = alpha_t * sigma_s**2 / (alpha_s * sigma_t**2)
    mean = broadcast(alpha_s * share, x_t) * x_0 + broadcast(c, x_t) * x_t
    return Posterior(mean, sigma_s**2 * share, sigma_t**2 * share)


def interpolated_logvar(small: Scale, large: Scale, v: Tensor) -> Tensor:
    """A learned log variance: `v log large + (1 - v) log small`, shape of `v`, `b ...`; both ends above 0.

    References:
        Improved Denoising Diffusion Probabilistic Models (Nichol and Dhariwal, 2021), eq. 15,
        https://arxiv.org/abs/2102.09672
    """
    low, high = (torch.as_tensor(end, dtype=torch.float64).log().reshape(-1) for end in (small, large))
    return broadcast(low, v) + v * broadcast(high - low, v)


class Ancestral(GridSampler):
    """DDPM's sampler, on any schedule and any number of steps; it uses a learned variance where there is one.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), algorithm 2, https://arxiv.org/abs/2006.11239

    Args:
        steps: Number of steps, at most the table's length; None is all of the table, or 1000 without one.
        variance: `small` is the posterior's own (beta_tilde), `large` that of the forward process (beta).

    Raises:
        ValueError: If `steps` is out of range or `variance` unknown.
    """

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int | None = None,
        variance: Literal["small", "large"] = "small",
    ) -> None:
        if variance not in ("small", "large"):
            raise ValueError(f"Ancestral expects variance to be small or large, got {variance!r}")
        steps = (schedule.num or 1000) if steps is None else steps
        super().__init__(schedule, x, spaced(self, schedule, steps, "trailing"))
        self.variance = variance

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """A draw of x_s; the last, at s = 0, is the mean."""
        scales_s = self.scales(s)
        x_0, v = self.predict(denoise, x_t, t)
        mean, small, large = posterior(x_t, x_0, self.scales(t), scales_s)
        if scales_s[1] == 0:
            return mean, None
        eps = rng.normal("eps", x_t)
        if v is not None:
            return mean + torch.exp(interpolated_logvar(small, large, v) / 2) * eps, None
        return mean + (small if self.variance == "small" else large) ** 0.5 * eps, None
