"""A subset of the training samples of another data set: what a model learns from few.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from modkit.data.moments import measure_std
from modkit.data.splits import check_indexed, check_split, hash_contents, read_samples, strip
from modkit.kinds import Data, DataExtras, Slot, default, read_extras
from modkit.rng import Rng
from modkit.types import Batch, TensorType

__all__ = ["Subset"]


class Subset:
    """A data set with some of the training samples of another, chosen by a seed, and all of its test samples.

    The samples of a smaller subset of the same seed are among those of a larger one.

    Args:
        data: The data set.
        num: Number of training samples.
        seed: Seed of the choice.

    Raises:
        ValueError: If the data are a stream, or have fewer than `num` training samples, or `num` is below 1.

    Examples:
        >>> from modkit.data import Digits
        >>> Subset(data=Digits, num=300).splits
        {'train': 300, 'test': 360}
    """

    def __init__(self, *, data: Slot[Data] = default("digits"), num: int = 300, seed: int = 0) -> None:
        self.data, self.seed = data(), seed
        check_indexed(self.data, "Subset")
        total = self.data.splits["train"]
        if not 1 <= num <= total:
            raise ValueError(f"Subset expects num in [1, {total:,}], the number of training samples, got {num:,}")
        self.fields, self.levels = self.data.fields, self.data.levels
        self.splits = {**self.data.splits, "train": num}
        extras = read_extras(self.data, DataExtras)
        self.truth, self.features, self.conditions = extras.truth, extras.features, extras.conditions
        self.factors = extras.factors
        self._read_fields = extras.read_fields
        order = Rng(seed, "subset").uniform("order", torch.empty(total, dtype=torch.float64)).argsort()
        self._chosen = order[:num]

    @cached_property
    def x(self) -> TensorType:
        """The type of a sample, with the deviation of the subset."""
        return self.data.x if self.data.x.std is None else replace(self.data.x, std=measure_std(self))

    @property
    def key(self) -> str:
        """Hash of the data and of which samples are chosen."""
        return hash_contents("subset", self.data.key, self.splits["train"], self.seed)

    @property
    def plain(self) -> Data | None:
        """The same of the data as they are without augmentation, or None if they have none."""
        return strip(self)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`.

        Raises:
            ValueError: If there is no such split.
        """
        return read_samples(self.data, split, self._find(split, indices), rng)

    def read_fields(self, split: str, indices: Sequence[int]) -> dict[str, Tensor]:
        """Reads the fields at `indices`; the samples are read only if the data cannot do without."""
        rows = self._find(split, indices)
        return dict(self._read_fields(split, rows) if self._read_fields else self.read(split, indices, Rng(0)).fields)

    def _find(self, split: str, indices: Sequence[int]) -> list[int]:
        check_split(self, split)
        return self._chosen[list(indices)].tolist() if split == "train" else list(indices)
