"""Values of the part. The test is copied with the part."""

import torch

from modkit import Rng, TensorType
from scenes.starters.layout import Spread


def test_its_loss_is_least_at_the_spread_of_the_data() -> None:
    """The maximum of the likelihood."""
    places = 0.3 * Rng(0).normal("places", torch.empty(1000, 2))
    layout = Spread(TensorType((2,)), std=float(places.square().mean().sqrt()))
    layout.loss(places).backward()
    assert layout.std.grad is not None and float(layout.std.grad.sum().abs()) < 1e-4
    assert torch.allclose(layout.draw(1000, Rng(0)), layout.std * places / 0.3)
