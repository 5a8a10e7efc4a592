r"""The exact denoiser of a ring of Gaussians, in float64: what samplers are held against.

    E[x_0 | x_t] = sum_k r_k (m_k + alpha_t c / s (x_t - alpha_t m_k)),    s = alpha_t^2 c + sigma_t^2
    r_k ~ w_k exp(-|x_t - alpha_t m_k|^2 / (2 s))

Component k has the weight w_k, the mean m_k and the covariance c I; the last has the largest weight.

Shape letters: b batch, k components.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

import modkit
from modkit.kinds import Denoise, Sampler, Schedule
from modkit.types import Denoised

__all__ = ["Ring", "draw_noise", "measure_rmse", "run"]


class Ring:
    """A mixture of Gaussians on a circle.

    Args:
        num: Number of components.
        radius: Radius of the circle.
        std: Standard deviation of a component.
    """

    def __init__(self, num: int, radius: float, std: float) -> None:
        angle = torch.arange(num, dtype=torch.float64) * 2 * math.pi / num
        self.means = radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        self.weights = torch.arange(1, num + 1, dtype=torch.float64)
        self.variance = std**2

    def make_denoise(self, schedule: Schedule) -> Denoise:
        """The best denoiser there is under `schedule`; it computes in float64 and keeps the dtype of `x_t`, `b 2`."""

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            alpha, sigma = (float(scale) for scale in schedule.scales(t))
            s = alpha**2 * self.variance + sigma**2
            away = x_t.double()[:, None] - alpha * self.means
            share = torch.softmax(self.weights.log() - away.square().sum(2) / (2 * s), dim=1)
            each = self.means + alpha * self.variance / s * away
            return Denoised((share[..., None] * each).sum(1).to(x_t.dtype))

        return denoise


def draw_noise(num: int = 200) -> Tensor:
    """Standard normal noise, `b 2`, float64, the same in each call."""
    return torch.randn(num, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def run(sampler: Sampler, denoise: Denoise, eps: Tensor) -> Tensor:
    """Samples from `eps`, `b 2`."""
    return modkit.sample(sampler, denoise, sampler.start(eps, sampler.times()[0]), seed=0)


def measure_rmse(a: Tensor, b: Tensor) -> float:
    """Root of the mean squared difference."""
    return float((a.double() - b.double()).square().mean().sqrt())
