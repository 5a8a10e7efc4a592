"""Values of the schedule."""

import torch
from torch import nn

from modkit.starters.lr_schedule import inverse_sqrt


def test_the_rate_rises_and_then_falls_with_the_root() -> None:
    """Of a rise of 4 steps: a quarter, a half, three quarters, all; at step 16 a half."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule, rates = inverse_sqrt(optimizer, 20, warmup=4), []
    for _ in range(16):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[15] == 1.0
