"""Values of the data."""

import torch

from modkit import Rng
from modkit.starters.data import Checkerboard


def test_points_lie_on_every_second_square_evenly() -> None:
    """The rows and columns have even sums, and each of the 8 squares has its share, to four standard errors."""
    data = Checkerboard()
    batch = data.read("train", range(4000), Rng(0))
    square = (batch.tensor + 2).floor().long()
    assert not (square.sum(1) % 2).any()
    assert 0 <= int(square.min()) <= int(square.max()) < 4
    shares = torch.bincount(batch.fields["labels"], minlength=8) / 4000
    assert float((shares - 1 / 8).abs().max()) < 4 * (7 / 64 / 4000) ** 0.5


def test_a_sample_is_the_same_in_any_batch() -> None:
    """Asked for alone or among others, in another order."""
    data = Checkerboard(num=10)
    assert torch.equal(data.read("train", [7, 3], Rng(0)).tensor[1], data.read("train", [3], Rng(1)).tensor[0])
