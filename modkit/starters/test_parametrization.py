"""Values of the parametrization."""

import torch

from modkit.diffusion.schedules import Cosine
from modkit.starters.parametrization import Flow


def test_the_true_target_gives_x_0_back_and_costs_nothing() -> None:
    """Of out = eps - x_0, at several times."""
    schedule, generator = Cosine(), torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 5, dtype=torch.float64, generator=generator)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    alpha, sigma = (scale[:, None] for scale in schedule.scales(t))
    x_t = alpha * x_0 + sigma * eps
    flow = Flow(schedule)
    torch.testing.assert_close(flow.denoised(eps - x_0, x_t, t).x_0, x_0)
    torch.testing.assert_close(flow.losses(eps - x_0, x_0, eps, x_t, t)["denoising"], torch.zeros_like(t))
