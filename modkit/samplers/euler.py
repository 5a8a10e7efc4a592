r"""Euler's method on the probability-flow equation of u = x_t / alpha_t.

    du / dsigma = (u - x_0(u; sigma)) / sigma = eps_hat,    sigma = sigma_t / alpha_t

A step in u, times alpha_s, is `alpha_s x_0 + sigma_s eps_hat` in x, with the schedule's own sigma_s: DDIM's step with
eta = 0. What differs is the grid, which is one of noise levels.

Shape letters: b batch.
"""

from __future__ import annotations

from torch import Tensor

from modkit.kinds import Denoise, Schedule
from modkit.rng import Rng
from modkit.samplers.ddim import ddim_step
from modkit.samplers.grid import GridSampler, noise_levels
from modkit.types import TensorType

__all__ = ["Euler"]


class Euler(GridSampler):
    """Euler's method over EDM's noise levels: first order, one evaluation a step, deterministic.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), eq. 4 and 5,
        https://arxiv.org/abs/2206.00364

    Args:
        steps: Number of steps.
        rho: How much the levels crowd at the low end; 1 is even spacing.
        sigma_min: Lowest level above 0; None is the schedule's.
        sigma_max: Highest level; None is the schedule's.

    Raises:
        ValueError: If `steps`, `rho` or the levels are out of range.
    """

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 50,
        rho: float = 7.0,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
    ) -> None:
        times = noise_levels(self, schedule, steps, rho=rho, sigma_min=sigma_min, sigma_max=sigma_max)
        super().__init__(schedule, x, times)

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """x_s; the last step, to s = 0, returns the predicted x_0."""
        x_0 = self.predict(denoise, x_t, t).x_0
        return ddim_step(x_t, x_0, self.scales(t), self.scales(s)), None
