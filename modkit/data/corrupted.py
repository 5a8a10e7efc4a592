"""Corrupted data: another data set with the fields of a corruption added, for models that undo the corruption.

    fields of sample i = corruption(x_i, rng.at("corruption", i))

What is corrupted of a sample is a function of (seed, epoch, i): it changes with each epoch and does not depend on the
batch or the worker.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modkit.data.splits import check_indexed, hash_contents, read_samples
from modkit.kinds import Corruption, Data, DataExtras, Slot, default, read_extras
from modkit.rng import Rng
from modkit.types import Batch

__all__ = ["Corrupted"]


class Corrupted:
    """A data set whose samples come with damaged or smaller copies of themselves, in every split.

    It has the types, splits and levels of the data set. A model trained on it must read the fields of the corruption,
    by a conditioner such as `map`.

    Args:
        data: The data set.
        corruption: The corruption of a sample.

    Raises:
        ValueError: If the data set already has a field of that name, or is a stream.

    Examples:
        >>> from modkit.data import Digits, LowRes
        >>> data = Corrupted(data=lambda: Digits(size=8), corruption=LowRes)
        >>> batch = data.read("train", [0, 1], Rng(0))
        >>> batch.tensor.shape, batch.fields["low_res"].shape
        (torch.Size([2, 1, 8, 8]), torch.Size([2, 1, 4, 4]))
    """

    def __init__(self, *, data: Slot[Data] = default("digits"), corruption: Slot[Corruption] = default("mask")) -> None:
        self.data = data()
        check_indexed(self.data, "Corrupted")
        self.corruption = corruption(x=self.data.x)
        if clash := sorted(self.data.fields.keys() & self.corruption.fields.keys()):
            raise ValueError(f"Corrupted expects a corruption whose fields differ from the data's, got {clash} in both")
        self.x = self.data.x
        self.fields = {**self.data.fields, **self.corruption.fields}
        self.conditions = tuple(self.corruption.fields)
        self.splits = self.data.splits
        self.levels = self.data.levels
        self.factors = read_extras(self.data, DataExtras).factors

    @property
    def key(self) -> str:
        """Hash of the data and the corruption."""
        return hash_contents("corrupted", self.data.key, self.corruption.key)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices` with all fields.

        Raises:
            ValueError: If there is no such split.
        """
        batch = read_samples(self.data, split, indices, rng)
        each = _Each([rng.at("corruption", int(index)) for index in indices])
        made = self.corruption(batch.tensor, each)
        return Batch(batch.x, {**batch.fields, **made}, batch.cond)


class _Each(Rng):
    """A source with one source per row, so that a sample's draws depend on its index and not on its row."""

    def __init__(self, sources: Sequence[Rng]) -> None:
        super().__init__()
        self._sources = sources

    def at(self, *names: int | str) -> Rng:
        return _Each([one.at(*names) for one in self._sources])

    def rows(self, first: int) -> Rng:
        return _Each(self._sources[first:])

    def normal(self, name: str, like: Tensor) -> Tensor:
        return self._draw_rows(like, lambda rng, row: rng.normal(name, row))

    def uniform(self, name: str, like: Tensor) -> Tensor:
        return self._draw_rows(like, lambda rng, row: rng.uniform(name, row))

    def integers(self, name: str, like: Tensor, low: int, high: int) -> Tensor:
        return self._draw_rows(like, lambda rng, row: rng.integers(name, row, low, high))

    def make_generators(self, num: int) -> list[torch.Generator]:
        return [one.make_generators(1)[0] for one in self._sources[:num]]

    def _draw_rows(self, like: Tensor, draw: Callable[[Rng, Tensor], Tensor]) -> Tensor:
        return torch.cat([draw(rng, like[row : row + 1]) for row, rng in enumerate(self._sources[: len(like)])])
