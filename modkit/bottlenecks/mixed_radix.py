"""Mixed radix: the digits at a position as one number, as minutes and hours make one count of minutes.

    number = sum_i digit_i basis_i,   basis_i = prod_{j < i} levels_j,   digit_i in [0, levels_i)

Shape letters: b batch, c digits, least significant first, h w spatial (none, one, two or three sizes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["MixedRadix"]


class MixedRadix(nn.Module):
    """Numbers in [0, prod levels), written in digits.

    Args:
        levels: Values of each digit.
        rank: Number of spatial sizes; without any, one number stands for a vector of digits.
    """

    levels: Tensor
    basis: Tensor

    def __init__(self, levels: Sequence[int], *, rank: int) -> None:
        super().__init__()
        basis = [math.prod(levels[:i]) for i in range(len(levels))]
        for name, values in (("levels", levels), ("basis", basis)):
            self.register_buffer(name, torch.tensor(values).view(-1, *(1,) * rank), persistent=False)
        self._vector = rank == 0

    def to_number(self, digits: Tensor) -> Tensor:
        """Numbers `b h w` (`b 1` of vectors) of digits `b c h w`, int64."""
        return (digits * self.basis).sum(1, keepdim=self._vector)

    def to_digits(self, number: Tensor) -> Tensor:
        """Digits `b c h w` of numbers `b h w` (`b c` of `b 1`), int64."""
        return (number if self._vector else number[:, None]) // self.basis % self.levels
