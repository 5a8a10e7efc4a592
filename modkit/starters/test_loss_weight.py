"""Values of the loss weight."""

import torch

from modkit.diffusion.parametrizations import X0, Eps
from modkit.diffusion.schedules import Cosine
from modkit.starters.loss_weight import P2


def test_it_is_the_paper_s_on_eps_and_the_same_error_on_x_0() -> None:
    """1 / (1 + S)^gamma of eps; S times that of x_0."""
    schedule, t = Cosine(), torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    alpha, sigma = schedule.scales(t)
    snr = (alpha / sigma) ** 2
    torch.testing.assert_close(P2(schedule, Eps(schedule), gamma=0.5)(t), (1 + snr) ** -0.5)
    torch.testing.assert_close(P2(schedule, X0(schedule), gamma=0.5)(t), snr * (1 + snr) ** -0.5)
