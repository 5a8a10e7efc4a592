"""Corrupted data: another data set with the fields of a corruption beside its own, for models that undo it.

    fields of sample i = corruption(x_i, rng.at("corruption", i))

So what is hidden of a sample is a function of (seed, epoch, i): anew in each epoch, the same for any batch or worker.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modkit.data.splits import content_key
from modkit.kinds import Corruption, Data, Slot, default
from modkit.rng import Rng
from modkit.types import Batch

__all__ = ["Corrupted"]


class Corrupted:
    """A data set whose samples come with damaged or smaller copies of themselves, in every split.

    Args:
        data: The data set.
        corruption: What is done to a sample.

    Raises:
        ValueError: If the data set has a field of the same name.
    """

    def __init__(self, *, data: Slot[Data] = default("digits"), corruption: Slot[Corruption] = default("mask")) -> None:
        self.data = data()
        self.corruption = corruption(x=self.data.x)
        if clash := sorted(self.data.fields.keys() & self.corruption.fields.keys()):
            raise ValueError(f"Corrupted expects fields of other names than the data's, got {clash} in both")
        self.x = self.data.x
        self.fields = {**self.data.fields, **self.corruption.fields}
        self.splits = self.data.splits
        self.levels = self.data.levels

    @property
    def key(self) -> str:
        """Hash of the data and the corruption."""
        return content_key("corrupted", self.data.key, self.corruption.key)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """The samples at `indices` with all fields.

        Raises:
            ValueError: If there is no such split.
        """
        batch = self.data.read(split, indices, rng)
        each = _Each([rng.at("corruption", int(index)) for index in indices])
        made = self.corruption(batch.tensor, each)
        return Batch(batch.x, {**batch.fields, **made}, batch.cond)


class _Each(Rng):
    """A source of rows that have a source each: a sample's draws are its index's, wherever it stands in a batch."""

    def __init__(self, sources: Sequence[Rng]) -> None:
        super().__init__()
        self._sources = sources

    def at(self, *names: int | str) -> Rng:
        return _Each([one.at(*names) for one in self._sources])

    def rows(self, first: int) -> Rng:
        return _Each(self._sources[first:])

    def normal(self, name: str, like: Tensor) -> Tensor:
        return self._gathered(like, lambda rng, row: rng.normal(name, row))

    def uniform(self, name: str, like: Tensor) -> Tensor:
        return self._gathered(like, lambda rng, row: rng.uniform(name, row))

    def integers(self, name: str, like: Tensor, low: int, high: int) -> Tensor:
        return self._gathered(like, lambda rng, row: rng.integers(name, row, low, high))

    def make_generators(self, num: int) -> list[torch.Generator]:
        return [one.make_generators(1)[0] for one in self._sources[:num]]

    def _gathered(self, like: Tensor, draw: Callable[[Rng, Tensor], Tensor]) -> Tensor:
        return torch.cat([draw(rng, like[row : row + 1]) for row, rng in enumerate(self._sources[: len(like)])])
