r"""Latent diffusion's schedule and sampler: betas whose roots rise linearly, and DDIM on the authors' grid.

    beta_i = (sqrt(beta_start) + i / (n - 1) (sqrt(beta_end) - sqrt(beta_start)))^2
    indices 1, 1 + c, 1 + 2 c, ...,   c = floor(n / steps)

Their sampler starts from unit noise, whatever signal remains at its first index, and ends not at x_0 but at the noise
level of the table's first index.

Shape letters: b batch, n table.

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), appendix E,
    https://arxiv.org/abs/2112.10752
    Denoising Diffusion Implicit Models (Song et al., 2021), eq. 12, https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from modkit.diffusion.schedules import Table
from modkit.kinds import Denoise, Schedule
from modkit.rng import Rng
from modkit.samplers.ddim import ddim_step
from modkit.samplers.grid import GridSampler
from modkit.types import Range, Share, TensorType, checked

__all__ = ["AuthorsDDIM", "ScaledLinear"]


@checked
class ScaledLinear(Table):
    """Variances whose square roots rise linearly.

    Args:
        num: Length of the table.
        beta_start: First variance.
        beta_end: Last variance.

    Raises:
        ValueError: If `num` is outside [1, 100000] or a variance outside (0, 1).

    Examples:
        >>> ScaledLinear(num=3, beta_start=0.01, beta_end=0.25).betas
        tensor([0.0100, 0.0900, 0.2500], dtype=torch.float64)
    """

    def __init__(
        self,
        *,
        num: Annotated[int, Range(1, 100_000)] = 1000,
        beta_start: Annotated[float, Range(above=0, below=1)] = 0.0015,
        beta_end: Annotated[float, Range(above=0, below=1)] = 0.0195,
    ) -> None:
        roots = torch.linspace(beta_start**0.5, beta_end**0.5, num, dtype=torch.float64, device="cpu")
        super().__init__(roots**2)


@checked
class AuthorsDDIM(GridSampler):
    """DDIM on the grid of latent diffusion's own sampler; if `steps` does not divide the table, it takes a few more.

    Args:
        steps: Number of steps, at most half the table's length.
        eta: Fraction of fresh noise: 0 is deterministic, 1 is ancestral sampling.

    Raises:
        ValueError: If the schedule has no table, the indices exceed it, or `eta` is outside [0, 1].

    Examples:
        >>> AuthorsDDIM(ScaledLinear(num=10), TensorType((1,)), steps=2).times()
        tensor([0.7000, 0.2000, 0.0000], dtype=torch.float64)
    """

    def __init__(self, schedule: Schedule, x: TensorType, *, steps: int = 50, eta: Share = 0.0) -> None:
        num = schedule.num
        if num is None or not 1 <= steps <= num:
            raise ValueError(f"AuthorsDDIM expects steps in [1, n] on a table of n, got {steps} on {num}")
        indices = torch.arange(0, num, num // steps, dtype=torch.float64, device="cpu") + 1
        if indices[-1] >= num:
            raise ValueError(f"AuthorsDDIM expects steps whose indices end before {num}, got {steps}, up to {num}")
        super().__init__(schedule, x, torch.cat([(indices.flip(0) + 1) / num, indices.new_zeros(1)]))
        self.eta = eta
        self._last = self.scales(torch.tensor(1 / num, dtype=torch.float64))

    def start(self, eps: Tensor, t: Tensor) -> Tensor:
        """Returns `eps`: unit noise, `b ...`."""
        return eps

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """Computes x_s; the last step ends at the table's first index."""
        scales_s = self.scales(s) if s > 0 else self._last
        x_0 = self.predict(denoise, x_t, t).x_0
        return ddim_step(x_t, x_0, self.scales(t), scales_s, eta=self.eta, rng=rng), None
