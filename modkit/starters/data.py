r"""A checkerboard: points distributed uniformly over every second square of a board.

    x = (square + u) side - board / 2,    u uniform in [0, 1)^2,    squares whose row and column have an even sum

A data set states the type of a sample, the types of its fields (here the square, as `labels`) and the number of
samples, and reads samples by their indices; the loader chooses the order (`modkit.kinds.Data`). Sample i of a split is
always the same, so that runs are reproducible.

Shape letters: b batch.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor

from modkit import Batch, Rng, TensorType
from modkit.data import check_split, hash_contents
from modkit.types import PositiveFloat, PositiveInt, Range, checked

__all__ = ["Checkerboard"]


@checked
class Checkerboard:
    """Points on a checkerboard, `b 2`, with the number of their square as the field `labels`.

    References:
        Neural Spline Flows (Durkan et al., 2019), figure 3, https://arxiv.org/abs/1906.04032

    Args:
        squares: Number of squares along a side, even.
        width: Length of a side of the board; its center is the origin.
        num: Number of training samples.
        num_test: Number of test samples.

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self,
        *,
        squares: Annotated[int, Range(2)] = 4,
        width: PositiveFloat = 4.0,
        num: PositiveInt = 20_000,
        num_test: PositiveInt = 2_000,
    ) -> None:
        if squares % 2:
            raise ValueError(f"Checkerboard expects an even number of squares, got {squares}")
        self.squares, self.width = squares, width
        self.x = TensorType((2,))
        self.fields = {"labels": TensorType((), classes=squares**2 // 2)}
        self.splits = {"train": num, "test": num_test}
        self.levels: int | None = None
        self._samples = {split: self._draw(split) for split in self.splits}

    @property
    def key(self) -> str:
        """Hash of the settings, which determine the samples."""
        return hash_contents("checkerboard", self.squares, self.width, *self.splits.values())

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`; `rng` is unused, since there is no augmentation."""
        check_split(self, split)
        x, labels = self._samples[split]
        rows = torch.as_tensor(indices, dtype=torch.int64)
        return Batch(x[rows], {"labels": labels[rows]})

    def _draw(self, split: str) -> tuple[Tensor, Tensor]:
        num, rng = self.splits[split], Rng(0, "checkerboard", split)
        labels = rng.integers("square", torch.empty(num), 0, self.squares**2 // 2)
        row = labels // (self.squares // 2)
        column = 2 * (labels % (self.squares // 2)) + row % 2
        corner = torch.stack([column, row], dim=1)
        u = rng.uniform("place", torch.empty(num, 2))
        return (corner + u) * (self.width / self.squares) - self.width / 2, labels
