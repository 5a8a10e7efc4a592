r"""Euler-Maruyama on a reverse SDE with a diffusion of choice.

    dx = (v - w / 2 grad log p_t) dt + sqrt(w) dW,    v the velocity of the probability flow, t downwards
    x_s = alpha_s x_0 + (sigma_s - g / (2 sigma_t)) eps_hat + sqrt(g) eps,    g = w (t - s)

The marginals are those of the forward process for every w. Its step of the probability flow is DDIM's, which is exact
on a straight line.

    g = scale sigma_t^2 tau                    w of the forward process, whose x_t has the variance g given x_s
    g = scale sigma_t (sigma_t - sigma_s)      w = sigma_t of a straight line, with less noise near the data

Shape letters: b batch.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from modkit.diffusion.gaussian import add_scaled, combine, tau
from modkit.kinds import Denoise, Schedule, default
from modkit.rng import Rng
from modkit.samplers.clipping import Clip
from modkit.samplers.grid import GridSampler, GridSlot, StepGrid
from modkit.types import NonNegativeFloat, TensorType, checked

__all__ = ["SDE"]


@checked
class SDE(GridSampler):
    """Euler-Maruyama with a chosen diffusion; the last step, to x_0, adds no noise.

    References:
        SiT (Ma et al., 2024), eq. 10 and section 2.4, https://arxiv.org/abs/2401.08740
        Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), eq. 6,
        https://arxiv.org/abs/2011.13456

    Args:
        steps: Number of steps.
        diffusion: `forward` is that of the forward process, `sigma` SiT's.
        scale: Factor of the diffusion; 0 is the probability flow.

    Raises:
        ValueError: If `steps` is out of range, `diffusion` unknown, `scale` negative, or `clip` malformed.

    Examples:
        >>> import modkit, torch
        >>> from modkit.diffusion.schedules import Flow
        >>> schedule = Flow()
        >>> def denoise(x_t, t):  # of data N(0, 1)
        ...     alpha, sigma = schedule.scales(t)
        ...     return modkit.Denoised(alpha * x_t / (alpha**2 + sigma**2))
        >>> sampler = SDE(schedule, TensorType((1,)), steps=100, diffusion="sigma")
        >>> x_t = sampler.start(Rng(0).normal("start", torch.empty(5000, 1)), sampler.times()[0])
        >>> print(f"{modkit.sample(sampler, denoise, x_t, seed=0).std():.1f}")
        1.0
    """

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 250,
        diffusion: Literal["forward", "sigma"] = "forward",
        scale: NonNegativeFloat = 1.0,
        grid: GridSlot = default("auto"),
        clip: Clip = True,
    ) -> None:
        super().__init__(schedule, x, StepGrid(grid, schedule, x, steps), clip=clip)
        self.diffusion, self.scale, self.deterministic = diffusion, scale, scale == 0

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """Returns x_s."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = scales_t, scales_s = self.scales(t), self.scales(s)
        x_0 = self.predict(denoise, x_t, t).x_0
        if sigma_s == 0:
            return alpha_s * x_0, None
        rate = sigma_t * tau(scales_t, scales_s) if self.diffusion == "forward" else sigma_t - sigma_s
        variance = self.scale * sigma_t * rate
        kept = (sigma_s - variance / (2 * sigma_t)) / sigma_t
        x_s = combine(alpha_s - kept * alpha_t, x_0, kept, x_t)
        return (add_scaled(x_s, variance**0.5, rng.normal("eps", x_t)) if variance else x_s), None
