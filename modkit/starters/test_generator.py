"""Values of the generator."""

import math

import torch

from modkit import Cond, CondType, TensorType
from modkit.starters.generator import Waves


def test_one_strength_is_one_wave() -> None:
    """With the cosine of one period down and two across alone, x is that wave."""
    generator = Waves(TensorType((2,)), TensorType((1, 8, 8)), CondType(), waves=2, width=4)
    with torch.no_grad():
        generator.strength.weight.zero_()
        generator.strength.bias.zero_()
        generator.strength.bias[1 * 5 + 4] = 3.0  # frequencies 1 of 0 to 2 down, 2 of -2 to 2 across
    at = torch.arange(8) / 8
    expected = 3 * torch.cos(2 * math.pi * (at[:, None] + 2 * at))
    torch.testing.assert_close(generator(torch.ones(1, 2), Cond())[0, 0], expected)
