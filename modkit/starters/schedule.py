r"""A rotation from data to noise: signal and noise are the cosine and the sine of an angle that grows linearly.

    alpha_t = cos(theta t),  sigma_t = sin(theta t),  sigma_t / alpha_t = tan(theta t),  theta = arctan(sigma_max)

A schedule defines the scales of signal and noise in x_t, and the time of a noise level, both in float64
(`modkit.kinds.Schedule`). At t = 0 there is no noise.
"""

import math

import torch
from torch import Tensor

from modkit.types import PositiveFloat, checked

__all__ = ["Rotation"]


@checked
class Rotation:
    """A rotation at constant speed, without a table.

    References:
        Simplifying, Stabilizing and Scaling Continuous-Time Consistency Models (Lu and Song, 2024), section 3.1,
        https://arxiv.org/abs/2410.11081

    Args:
        sigma_max: The noise level sigma_t / alpha_t at t = 1.

    Raises:
        ValueError: If `sigma_max` is not positive and finite.
    """

    num: int | None = None

    def __init__(self, *, sigma_max: PositiveFloat = 80.0) -> None:
        self.theta = math.atan(sigma_max)

    def scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns `(alpha_t, sigma_t)` at `t` in [0, 1], of any shape and on any device."""
        angle = t.to(torch.float64) * self.theta
        return torch.cos(angle), torch.sin(angle)

    def time(self, sigma: Tensor) -> Tensor:
        """Returns the time t at which the noise level is `sigma`."""
        return torch.atan(sigma.to(torch.float64)) / self.theta
