"""Values of the losses."""

import torch

from modkit.starters.adversarial import LeastSquares


def test_they_are_half_the_squared_distances() -> None:
    """By hand, of two logits a side."""
    game = LeastSquares()
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -1.0])
    assert float(game.generator(fake)) == (1 + 4) / 2 / 2
    assert float(game.discriminator(real, fake)) == (0 + 4) / 2 / 2 + (0 + 1) / 2 / 2
