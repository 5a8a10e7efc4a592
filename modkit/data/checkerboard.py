"""A checkerboard: points distributed uniformly over every second square of a board, whose density is known.

    x = (square + u) side - board / 2,    u uniform in [0, 1)^2,    squares whose row and column have an even sum
    log p(x) = -log(board^2 / 2) on these squares

Shape letters: b batch.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor

from modkit.data.points import Num, NumTest, Points
from modkit.rng import Rng
from modkit.types import PositiveFloat, Range, checked

__all__ = ["Checkerboard"]

_MOST_SQUARES = 100


@checked
class Checkerboard(Points):
    """Points on a checkerboard, `b 2`, with the number of their square as the field `labels`.

    References:
        Neural Spline Flows (Durkan et al., 2019), figure 3, https://arxiv.org/abs/1906.04032

    Args:
        squares: Number of squares along a side of the board, even.
        board: Length of a side of the board, whose center is the origin.

    Raises:
        ValueError: If a number is out of range.

    Examples:
        >>> data = Checkerboard(squares=2, board=2.0, num=4, num_test=1)
        >>> x = data.read("train", range(4), Rng(0)).tensor
        >>> bool((x.prod(1) >= 0).all()), round(data.entropy, 4)
        (True, 0.6931)
    """

    def __init__(
        self,
        *,
        squares: Annotated[int, Range(2, _MOST_SQUARES)] = 4,
        board: PositiveFloat = 8.0,
        num: Num = 100_000,
        num_test: NumTest = 10_000,
    ) -> None:
        if squares % 2:
            raise ValueError(f"Checkerboard expects an even number of squares, got {squares}")
        self.squares, self.board = squares, board
        super().__init__("checkerboard", squares, board, classes=squares**2 // 2, num=num, num_test=num_test)

    @property
    def entropy(self) -> float:
        """The entropy of the points in nats, minus which is the mean log density that a model can reach."""
        return math.log(self.board**2 / 2)

    def _place(self, rng: Rng, cells: Tensor) -> tuple[Tensor, Tensor]:
        half = self.squares // 2
        labels = rng.integers("square", cells, 0, self.squares * half)
        row = labels // half
        corner = torch.stack([2 * (labels % half) + row % 2, row], dim=-1)
        u = rng.uniform("place", cells[..., None].expand(*cells.shape, 2))
        return (corner + u) * (self.board / self.squares) - self.board / 2, labels
