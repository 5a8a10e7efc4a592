"""Mixed radix: the digits at a position as one number, as hours and minutes give a number of minutes.

    number = sum_i digit_i basis_i,   basis_i = prod_{j < i} levels_j,   digit_i in [0, levels_i)

Shape letters: b batch, c digits, least significant first, h w spatial (one, two or three sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["MixedRadix"]


class MixedRadix(nn.Module):
    """Converts between numbers in [0, prod levels) and their digits.

    Args:
        levels: Number of values of each digit.
        rank: Number of spatial sizes.

    Examples:
        >>> radix = MixedRadix([60, 24], rank=1)
        >>> radix.to_number(torch.tensor([[[30], [2]]])), radix.to_digits(torch.tensor([[150]]))
        (tensor([[150]]), tensor([[[30],
                 [ 2]]]))
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int], *, rank: int) -> None:
        super().__init__()
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        for name, values in (("levels", levels), ("basis", basis)):
            self.register_buffer(name, torch.tensor(values).view(-1, *(1,) * rank), persistent=False)

    def to_number(self, digits: Tensor) -> Tensor:
        """Converts digits `b c h w` to numbers `b h w`, int64."""
        return (digits * self.basis).sum(1)

    def to_digits(self, number: Tensor) -> Tensor:
        """Converts numbers `b h w` to digits `b c h w`, int64."""
        return number[:, None] // self.basis % self.levels
