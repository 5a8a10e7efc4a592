"""Time sampling: at which times t a denoiser is trained.

Times are drawn from the rng under the name `time`, on the CPU, in float64.

Shape letters: b batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modkit.diffusion.schedules import get_std
from modkit.kinds import Schedule
from modkit.rng import Rng
from modkit.types import NonNegativeFloat, TensorType, checked

__all__ = ["LogNormal", "Uniform"]


class Uniform:
    """Draws times uniformly from the indices of a table, or from (0, 1] if the schedule has no table.

    Examples:
        >>> from modkit.diffusion.schedules import Linear
        >>> t = Uniform(Linear(num=4, beta_end=0.5))(1000, Rng(0))
        >>> t.unique()
        tensor([0.2500, 0.5000, 0.7500, 1.0000], dtype=torch.float64)
    """

    even = True

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """Draws `num` times, `b`, float64."""
        like = torch.empty(num, dtype=torch.float64, device="cpu")
        if self.schedule.num is None:
            return 1 - rng.uniform("time", like)
        return (rng.integers("time", like, 0, self.schedule.num) + 1).to(torch.float64) / self.schedule.num


@checked
class LogNormal:
    """Draws times at log-normal noise levels, `ln sigma ~ N(mean, std^2)`, clamped to the range of a table.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), table 1,
        https://arxiv.org/abs/2206.00364

    Args:
        schedule: The schedule.
        x: Type of the data.
        mean: Mean of ln sigma, where sigma is the noise level sigma_t / alpha_t. By default, it is the paper's -1.2
            with sigma in units of the data's standard deviation, the paper's being 0.5: `ln(std / 0.5) - 1.2`. It is
            -1.2 if the deviation is unknown.
        std: Standard deviation of ln sigma.

    Raises:
        ValueError: If `std` is negative.

    Examples:
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM()
        >>> alpha, sigma = schedule.scales(LogNormal(schedule, mean=-1.2, std=1.2)(10000, Rng(0)))
        >>> print(f"{sigma.log().mean():.1f} {sigma.log().std():.1f}")
        -1.2 1.2
        >>> print(f"{LogNormal(schedule, TensorType((4, 8, 8), std=1.0)).mean:.3f}")
        -0.507
    """

    def __init__(
        self, schedule: Schedule, x: TensorType | None = None, *, mean: float | None = None, std: NonNegativeFloat = 1.2
    ) -> None:
        self.schedule = schedule
        self.mean = math.log(get_std(x) / get_std(None)) - 1.2 if mean is None else mean
        self.std = std

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """Draws `num` times, `b`, float64."""
        normal = rng.normal("time", torch.empty(num, dtype=torch.float64, device="cpu"))
        t = self.schedule.time(torch.exp(self.mean + self.std * normal))
        return t if self.schedule.num is None else t.clamp(1 / self.schedule.num, 1)
