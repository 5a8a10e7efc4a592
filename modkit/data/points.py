"""Points in the plane, drawn when a data set is made.

Sample i of a split is a function of (split, i): it does not depend on the number of samples.

Shape letters: b batch.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from modkit.data.moments import measure_std
from modkit.data.splits import InMemory, hash_contents
from modkit.rng import Rng
from modkit.types import Range, TensorType, checked

__all__ = ["Num", "NumTest", "Points"]

_MOST_SAMPLES = 10_000_000
Num = Annotated[int, "Number of training samples.", Range(1, _MOST_SAMPLES)]
NumTest = Annotated[int, "Number of test samples.", Range(1, _MOST_SAMPLES)]

_CELL = 64  # samples per row of draws: rows of an Rng are padded, so one sample per row would waste most of each


@checked
class Points(InMemory):
    """Base of data sets of points `b 2`, unbounded, with a class of each as the field `labels` (`b`).

    A subclass has `_place(rng, cells)`, which draws the points and classes of `cells`, an empty tensor `rows 64`.

    Args:
        name: What the points are drawn by, beside the split.
        *settings: What else they depend on, for the key.
        classes: Number of classes.
        num: Number of training samples.
        num_test: Number of test samples.

    Raises:
        ValueError: If there are no samples or too many.
    """

    def __init__(self, name: str, *settings: str | float, classes: int, num: Num, num_test: NumTest) -> None:
        self.fields = {"labels": TensorType((), classes=classes)}
        self.splits = {"train": num, "test": num_test}
        self.levels = None
        self.key = hash_contents(name, *settings, num, num_test)
        self._samples = {split: self._draw(Rng(0, name, split), size) for split, size in self.splits.items()}
        self.x = TensorType((2,), std=measure_std(self))

    def _draw(self, rng: Rng, num: int) -> tuple[Tensor, Tensor]:
        points, labels = self._place(rng, torch.empty(-(-num // _CELL), _CELL))
        return points.view(-1, 2)[:num].clone(), labels.view(-1)[:num].clone()

    def _place(self, rng: Rng, cells: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError
