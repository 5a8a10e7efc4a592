"""Values of the bottleneck."""

import math

import torch
from torch.distributions import Normal, kl_divergence

from modkit import TensorType
from modkit.starters.bottleneck import FixedWidth


def test_its_kl_is_that_of_the_two_gaussians() -> None:
    """As torch.distributions has it, summed over a sample."""
    h = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    values, kl, losses = FixedWidth(TensorType((4, 2, 2)), std=0.4)(h, None)
    expected = kl_divergence(Normal(h, 0.4), Normal(0.0, 1.0)).flatten(1).sum(1)
    assert kl is not None
    torch.testing.assert_close(kl, expected)
    assert values["continuous"] is h
    assert losses == {}


def test_at_zero_and_width_one_nothing_is_said() -> None:
    """Then q is p."""
    kl = FixedWidth(TensorType((5,)), std=1.0)(torch.zeros(2, 5), None).kl
    assert kl is not None
    assert math.isclose(float(kl.abs().max()), 0.0)
