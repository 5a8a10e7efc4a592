"""Times: which t a denoiser is trained at.

Both draw from their rng under the name `time`, on the CPU, in float64.

Shape letters: b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import Schedule
from modkit.rng import Rng

__all__ = ["LogNormal", "Uniform"]


class Uniform:
    """Uniform over a table's indices, or over (0, 1] where the schedule has none."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """`num` times, `b`, float64."""
        like = torch.empty(num, dtype=torch.float64, device="cpu")
        if self.schedule.num is None:
            return 1 - rng.uniform("time", like)
        return (rng.integers("time", like, 0, self.schedule.num) + 1).to(torch.float64) / self.schedule.num


class LogNormal:
    """Noise levels whose logarithm is normal, `ln sigma ~ N(mean, std^2)`; on a table, clamped to its ends.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), table 1,
        https://arxiv.org/abs/2206.00364

    Args:
        mean: Mean of ln sigma, sigma being the noise level sigma_t / alpha_t.
        std: Standard deviation of ln sigma.

    Raises:
        ValueError: If `std` is negative.
    """

    def __init__(self, schedule: Schedule, *, mean: float = -1.2, std: float = 1.2) -> None:
        if std < 0:
            raise ValueError(f"LogNormal expects std of at least 0, got {std}")
        self.schedule = schedule
        self.mean = mean
        self.std = std

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """`num` times, `b`, float64."""
        normal = rng.normal("time", torch.empty(num, dtype=torch.float64, device="cpu"))
        t = self.schedule.time(torch.exp(self.mean + self.std * normal))
        return t if self.schedule.num is None else t.clamp(1 / self.schedule.num, 1)
