"""Corrupted data: another data set with the fields of a corruption added, for models that undo the corruption.

    fields of sample i = corruption(x_i, rng.at("corruption", i))

What is corrupted of a sample is a function of (seed, epoch, i): it changes with each epoch and does not depend on the
batch or the worker. Where corrupted data are corrupted again, each corruption has a source of its own, which is
`rng.at("corruption-again", d, i)` above d others.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from modkit.data.each import Each
from modkit.data.splits import check_indexed, hash_contents, read_samples, strip
from modkit.kinds import Corruption, Data, DataExtras, Slot, default, read_extras
from modkit.rng import Rng
from modkit.types import Batch

__all__ = ["Corrupted"]


class Corrupted:
    """A data set whose samples come with damaged or smaller copies of themselves, in every split.

    It has the types, splits and levels of the data set, and its samples are measured in the same features. A model
    trained on it must read the fields of the corruption, by a conditioner such as `map`.

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
        extras = read_extras(self.data, DataExtras)
        self.conditions = (*extras.conditions, *self.corruption.fields)
        self.splits = self.data.splits
        self.levels = self.data.levels
        self.truth, self.features, self.factors = extras.truth, extras.features, extras.factors
        self._place = ("corruption-again", depth) if (depth := _count_corrupted(self.data)) else ("corruption",)

    @property
    def key(self) -> str:
        """Hash of the data and the corruption."""
        return hash_contents("corrupted", self.data.key, self.corruption.key)

    @property
    def plain(self) -> Data | None:
        """The same of the data as they are without augmentation, or None if they have none."""
        return strip(self)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices` with all fields.

        Raises:
            ValueError: If there is no such split.
        """
        batch = read_samples(self.data, split, indices, rng)
        each = Each([rng.at(*self._place, int(index)) for index in indices])
        made = self.corruption(batch.tensor, each)
        return Batch(batch.x, {**batch.fields, **made}, batch.cond)


def _count_corrupted(data: object) -> int:
    """Counts how often data are corrupted, by themselves or by what they are made of."""
    num = 0
    while hasattr(data, "read"):
        num += isinstance(data, Corrupted)
        data = data.data if hasattr(data, "data") else None
    return num
