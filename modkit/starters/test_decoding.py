"""Values of the decoding."""

import torch
from torch import Tensor

from modkit import Rng, TensorType
from modkit.starters.decoding import MinP


def test_it_draws_from_what_is_likely_enough() -> None:
    """Of probabilities .6, .3 and .1 at min_p 1/4 the last is cut, and the others stay two to one."""
    probabilities = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)

    def predict(codes: Tensor, i: int | None) -> Tensor:
        return probabilities.log().expand(len(codes), -1)

    codes = MinP(TensorType((2, 2), classes=3), min_p=0.25)(predict, 2000, Rng(0))
    shares = torch.bincount(codes.flatten(), minlength=3) / codes.numel()
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3, 0.0]), rtol=0, atol=4 * (2 / 9 / 8000) ** 0.5)
