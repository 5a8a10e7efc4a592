"""Values of the sampler."""

from itertools import pairwise

import torch
from torch import Tensor

from modkit import Denoised, Rng, TensorType
from modkit.diffusion.schedules import Cosine
from modkit.starters.sampler import Euler


def test_gaussian_data_are_reached_along_the_exact_flow() -> None:
    """Of N(0, std^2) the denoiser is known, and the flow only scales: x_0 = x_t std / sqrt(alpha^2 std^2 + sigma^2)."""
    schedule, std = Cosine(), 0.5

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        alpha, sigma = schedule.scales(t)
        return Denoised(alpha * std**2 * x_t / (alpha**2 * std**2 + sigma**2))

    sampler = Euler(schedule, TensorType((1,)), steps=200)
    times = sampler.times()
    x = first = sampler.start(torch.tensor([[1.0], [-2.0]], dtype=torch.float64), times[0])
    for t, s in pairwise(times):
        x, _ = sampler.step(denoise, x, t, s, None, Rng(0))
    alpha, sigma = schedule.scales(times[0])
    torch.testing.assert_close(
        x, first * std / torch.sqrt(alpha**2 * std**2 + sigma**2), rtol=0.05, atol=0
    )  # an error of 1 / steps
