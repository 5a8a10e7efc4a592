"""Values of the optimizer."""

import torch
from torch import nn

from modkit.starters.optimizer import Lion


def test_steps_have_one_size_and_follow_the_average() -> None:
    """By hand: gradients 1, -1/2 and -12 move p down, down again by the average, and up."""
    p = nn.Parameter(torch.tensor([1.0]))
    optimizer, places = Lion([p], lr=0.1, betas=[0.9, 0.5], weight_decay=0.0), []
    for gradient in (1.0, -0.5, -12.0):
        p.grad = torch.tensor([gradient])
        optimizer.step()
        places.append(p.item())
    torch.testing.assert_close(places, [0.9, 0.8, 0.9])


def test_weights_decay() -> None:
    """By lr * weight_decay, where the gradient is zero."""
    p = nn.Parameter(torch.tensor([1.0]))
    p.grad = torch.zeros(1)
    Lion([p], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(p.item(), 0.95)
