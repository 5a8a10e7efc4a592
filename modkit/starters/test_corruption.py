"""Values of the corruption."""

import torch

from modkit import Rng, TensorType
from modkit.starters.corruption import LostPixels


def test_what_is_hidden_is_the_middle_and_the_rest_stays() -> None:
    """In all channels at once, at the rate that it is told, to four standard errors of 10,000."""
    x = torch.rand(100, 3, 10, 10, generator=torch.Generator().manual_seed(0))
    fields = LostPixels(TensorType((3, 10, 10), range=(0.0, 1.0)), rate=0.3)(x, Rng(0))
    hidden = fields["mask"].bool().expand_as(x)
    assert torch.equal(fields["masked"][~hidden], x[~hidden])
    assert set(fields["masked"][hidden].tolist()) == {0.5}
    assert abs(float(fields["mask"].mean()) - 0.3) < 4 * (0.3 * 0.7 / 10_000) ** 0.5
