r"""Heun's method on the probability-flow equation, with EDM's churn.

    z = x_t / (alpha_t + a sigma_t),    u = sigma_t / (alpha_t + a sigma_t)
    dz / du = d_t = eps_hat - a x_0,    eps_hat = (x_t - alpha_t x_0) / sigma_t

    z_s' = z_t + (u_s - u_t) d_t                    Euler's step: x_s' = alpha_s x_0 + sigma_s eps_hat, whatever a is
    z_s = z_s' + (u_s - u_t) (d_s - d_t) / 2        its correction, with d_s at x_s'

On EDM's noise levels a is 0, which is EDM's own equation, and u is the noise level. Other grids may start where hardly
any signal and thus no usable noise level is left; there a is 1, and u the time of a straight line from data to noise.

Shape letters: b batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modkit.diffusion.gaussian import combine
from modkit.kinds import Denoise, GridExtras, Schedule, default, read_extras
from modkit.rng import Rng
from modkit.samplers.clipping import Clip
from modkit.samplers.ddim import ddim_step
from modkit.samplers.grid import GridSampler, GridSlot, StepGrid, move_spacing
from modkit.types import NonNegativeFloat, TensorType, checked

__all__ = ["Heun"]


@checked
class Heun(GridSampler):
    """EDM's sampler: second order, with two evaluations per step and one in the last, `2 steps - 1` in all.

    With fewer than 18 steps its default grid is not EDM's: for the same numbers as EDM's sampler, state
    `grid: {use: karras, sigma_min: null}`.

    With churn, each step first adds noise to raise the level to `sigma (1 + gamma)`, where
    `gamma = min(churn / steps, sqrt(2) - 1)`, but not above the highest level of a table.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), algorithm 2,
        https://arxiv.org/abs/2206.00364

    Args:
        steps: Number of steps.
        churn: Amount of noise added in all steps together; 0 is deterministic.
        churn_min: Lowest level at which noise is added.
        churn_max: Highest level at which noise is added; None means no upper limit.
        noise: Standard deviation of the added noise.

    Raises:
        ValueError: If `steps` is out of range, `churn` or `noise` is negative, or `clip` malformed.

    Examples:
        >>> import modkit
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM()
        >>> calls = []
        >>> def denoise(x_t, t):  # of data N(0, 1)
        ...     calls.append(t)
        ...     return modkit.Denoised(x_t / (1 + schedule.scales(t)[1] ** 2))
        >>> sampler = Heun(schedule, TensorType((1,)), steps=18)
        >>> x_t = sampler.start(torch.ones(1, 1), sampler.times()[0])
        >>> x = modkit.sample(sampler, denoise, x_t)
        >>> len(calls)
        35
    """

    expand_params = staticmethod(move_spacing)

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 18,
        churn: NonNegativeFloat = 0.0,
        churn_min: float = 0.0,
        churn_max: float | None = None,
        noise: NonNegativeFloat = 1.0,
        grid: GridSlot = default("continuous"),
        clip: Clip = True,
    ) -> None:
        times = StepGrid(grid, schedule, x, steps)
        super().__init__(schedule, x, times, clip=clip)
        self.slope = 0.0 if read_extras(times.grid, GridExtras).noise_levels else 1.0
        self.gamma = min(churn / steps, math.sqrt(2) - 1)
        self.churn_min = churn_min
        self.churn_max = math.inf if churn_max is None else churn_max
        self.noise = noise
        self.deterministic = churn == 0 or noise == 0

    def list_asked(self) -> Tensor:
        """All times at which the denoiser is called, `n`, in descending order: those to which churn raises as well."""
        times = self.times()[:-1]
        raised = torch.stack([self._raise_time(t) for t in times])
        return torch.cat([raised, times[1:]]).unique().flip(0)

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """Returns x_s; the last step, to s = 0, is one of Euler's method."""
        x_t, t = self._add_churn(x_t, t, rng)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = self.scales(t), self.scales(s)
        x_0 = self.predict(denoise, x_t, t).x_0
        x_s = ddim_step(x_t, x_0, (alpha_t, sigma_t), (alpha_s, sigma_s))
        if sigma_s == 0:
            return x_s, None
        a = self.slope
        d_t = combine(1 / sigma_t, x_t, -(alpha_t / sigma_t + a), x_0)
        x_0 = self.predict(denoise, x_s, s).x_0
        d_s = combine(1 / sigma_s, x_s, -(alpha_s / sigma_s + a), x_0)
        to_z_t, to_z_s = alpha_t + a * sigma_t, alpha_s + a * sigma_s
        length = sigma_s - to_z_s * sigma_t / to_z_t  # to_z_s (u_s - u_t)
        return torch.add(x_s, d_s - d_t, alpha=length / 2), None

    def _add_churn(self, x_t: Tensor, t: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        """Adds noise to x_t; returns it with its new time."""
        raised = self._raise_time(t)
        if raised is t:
            return x_t, t
        (alpha_t, sigma_t), (alpha, sigma_hat) = self.scales(t), self.scales(raised)
        added = max((sigma_hat / alpha) ** 2 - (sigma_t / alpha_t) ** 2, 0.0) ** 0.5  # none at the end of a table
        return combine(alpha / alpha_t, x_t, alpha * added * self.noise, rng.normal("eps", x_t)), raised

    def _raise_time(self, t: Tensor) -> Tensor:
        """The time to which churn raises the noise level of `t`; `t` itself where there is none."""
        alpha_t, sigma_t = self.scales(t)
        sigma = sigma_t / alpha_t
        if self.gamma == 0 or not self.churn_min <= sigma <= self.churn_max:
            return t
        return self.schedule.time(torch.tensor(sigma * (1 + self.gamma), dtype=torch.float64, device="cpu"))
