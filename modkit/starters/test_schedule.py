"""Values of the schedule."""

import math

import torch

from modkit.starters.schedule import Rotation


def test_it_rotates_from_data_to_the_highest_noise_level() -> None:
    """The variance is preserved, the noise level at 1 is `sigma_max`, and half the angle halves its tangent's angle."""
    alpha, sigma = Rotation(sigma_max=80.0).scales(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64))
    level = sigma / alpha
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    expected = [0.0, math.tan(math.atan(80.0) / 2), 80.0]
    torch.testing.assert_close(level, torch.tensor(expected, dtype=torch.float64))
