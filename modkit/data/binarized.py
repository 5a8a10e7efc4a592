"""Binarized data: another data set with two values, the ends of its range, in place of all others.

    p = (x - low) / (high - low),   high where p > u, low elsewhere,   u = 1/2, or uniform in [0, 1) for each value

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from modkit.data.moments import measure_std
from modkit.data.splits import check_indexed, hash_contents, read_samples, strip
from modkit.kinds import Data, DataExtras, Slot, default, read_extras
from modkit.rng import Rng
from modkit.types import Batch

__all__ = ["Binarized"]


class Binarized:
    """A data set whose values are the two ends of its range, for which `bernoulli` is a distribution.

    It has the fields and splits of the data set. `levels` is 2.

    References:
        On the Quantitative Analysis of Deep Belief Networks (Salakhutdinov & Murray, 2008), section 5: drawn values,
        https://www.cs.toronto.edu/~rsalakhu/papers/dbn_ais.pdf

    Args:
        data: The data set.
        drawn: Whether values are drawn anew in each epoch, with the grey as the probability of the upper end; otherwise
            they are cut at the middle.

    Raises:
        ValueError: If the data have no range, or are a stream.

    Examples:
        >>> from modkit.data import Digits
        >>> data = Binarized(data=lambda: Digits(size=8))
        >>> data.read("train", [0, 1], Rng(0)).tensor.unique()
        tensor([-1.,  1.])
    """

    levels: int | None = 2

    def __init__(self, *, data: Slot[Data] = default("digits"), drawn: bool = False) -> None:
        self.data, self.drawn = data(), drawn
        check_indexed(self.data, "Binarized")
        if self.data.x.range is None:
            raise ValueError(f"Binarized expects data with a range, got {self.data.x}")
        self.fields, self.splits = self.data.fields, self.data.splits
        self.x = replace(self.data.x, std=measure_std(self))
        extras = read_extras(self.data, DataExtras)
        self.features, self.conditions, self.read_fields = extras.features, extras.conditions, extras.read_fields
        self.factors = extras.factors

    @property
    def key(self) -> str:
        """Hash of the data and of how they are binarized."""
        return hash_contents("binarized", self.data.key, self.drawn)

    @property
    def plain(self) -> Data | None:
        """The same of the data as they are without augmentation, or None if they have none."""
        return strip(self)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`.

        Raises:
            ValueError: If there is no such split.
        """
        batch = read_samples(self.data, split, indices, rng)
        x, (low, high) = batch.tensor, self.data.x.range or (0.0, 1.0)
        threshold = torch.full_like(x, 0.5)
        if self.drawn:
            draws = [rng.at("binarize", int(i)).uniform("u", x[row : row + 1]) for row, i in enumerate(indices)]
            threshold = torch.cat(draws)
        return replace(batch, x=torch.where((x - low) / (high - low) > threshold, high, low).to(x.dtype))
