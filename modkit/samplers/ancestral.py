"""Ancestral sampling: each step draws x_s from the forward process's own posterior given the predicted x_0.

    x_s ~ q(x_s | x_t, x_0)

The posterior, written out in `modkit.diffusion.gaussian`, exists between any two times s < t, so no table is needed.

Shape letters: b batch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from modkit.diffusion.gaussian import add_scaled, interpolate_logvar, posterior
from modkit.kinds import Denoise, Schedule, default
from modkit.rng import Rng
from modkit.samplers.clipping import Clip
from modkit.samplers.grid import GridSampler, GridSlot, StepGrid, move_spacing
from modkit.types import TensorType, checked

__all__ = ["Ancestral"]


@checked
class Ancestral(GridSampler):
    """DDPM's sampler, on any schedule and with any number of steps; it uses the learned variance if there is one.

    References:
        Denoising Diffusion Probabilistic Models (Ho et al., 2020), algorithm 2, https://arxiv.org/abs/2006.11239

    Args:
        steps: Number of steps, at most the table's length; None means the whole table, or 1000 without a table.
        variance: `small` is the posterior's own (beta_tilde), `large` that of the forward process (beta).

    Raises:
        ValueError: If `steps` is out of range, `variance` unknown, or `clip` malformed.

    Examples:
        >>> import modkit
        >>> from modkit.diffusion.schedules import VP
        >>> schedule = VP()
        >>> def denoise(x_t, t):  # of data N(0, 1)
        ...     return modkit.Denoised(schedule.scales(t)[0] * x_t)
        >>> sampler = Ancestral(schedule, TensorType((1,)), steps=10, variance="large")
        >>> x_t = sampler.start(Rng(0).normal("start", torch.empty(5000, 1)), sampler.times()[0])
        >>> print(f"{modkit.sample(sampler, denoise, x_t, seed=0).std():.1f}")
        1.0
    """

    expand_params = staticmethod(move_spacing)

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int | None = None,
        variance: Literal["small", "large"] = "small",
        grid: GridSlot = default("auto"),
        clip: Clip = True,
    ) -> None:
        steps = (schedule.num or 1000) if steps is None else steps
        super().__init__(schedule, x, StepGrid(grid, schedule, x, steps), clip=clip)
        self.variance = variance

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """Draws x_s; the last step, to s = 0, returns the posterior's mean, which is the predicted x_0."""
        scales_s = self.scales(s)
        x_0, v = self.predict(denoise, x_t, t)
        mean, small, large = posterior(x_t, x_0, self.scales(t), scales_s)
        if scales_s[1] == 0:
            return mean, None
        eps = rng.normal("eps", x_t)
        if v is not None:
            return mean + torch.exp(interpolate_logvar(small, large, v) / 2) * eps, None
        return add_scaled(mean, (small if self.variance == "small" else large) ** 0.5, eps), None
