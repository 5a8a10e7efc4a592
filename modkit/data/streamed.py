"""A torch IterableDataset as a stream: it is read from its beginning, pass after pass.

    share p of n        items p, p + n, p + 2n, …

Each share reads all items and keeps its own, so every process and worker must see them in the same order: the dataset
is iterated with draws of torch's that are seeded alike, and must not divide itself among workers.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from modkit.data.splits import hash_contents
from modkit.rng import Rng
from modkit.types import Batch, TensorType

__all__ = ["Streamed"]

_COUNTED = 100_000  # items that are read to count them
_ROWS = 64  # of a batch


class Streamed:
    """An IterableDataset as the single split `train`; a dataset without a length is read once, to count its items.

    A training that is resumed begins the stream anew.

    Args:
        dataset: The dataset.
        convert: Converts item number i to tensors by name: `x` and the fields.
        x: The type of one sample.
        fields: The types of the fields.

    Raises:
        ValueError: If it has no item, has no length and does not end, or its first item has another form.
    """

    def __init__(
        self,
        dataset: IterableDataset[Any],
        convert: Callable[[int, Any], dict[str, Tensor]],
        *,
        x: TensorType,
        fields: Mapping[str, TensorType],
    ) -> None:
        self.x, self.fields, self._dataset, self._convert = x, dict(fields), dataset, convert
        self.levels: int | None = None
        first = next(self._read_items(Rng(0, "count")), None)
        if first is None:
            raise ValueError(f"{type(dataset).__name__} expects items, got none")
        convert(0, first)
        self.splits = {"train": len(dataset) if hasattr(dataset, "__len__") else self._count()}

    @property
    def key(self) -> str:
        """Hash of the dataset's class and length; a stream may have other items each time, which are not hashed."""
        kind = type(self._dataset)
        return hash_contents("streamed", f"{kind.__module__}.{kind.__qualname__}", self.splits["train"])

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Refuses to read by index.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"Streamed expects to be read as a stream, got indices of {type(self._dataset).__name__}")

    def stream(self, split: str, part: int, parts: int, rng: Rng) -> Iterator[Batch]:
        """Reads one pass over share `part` of `parts`, in batches `b …` of at most 64 rows."""
        rows: list[dict[str, Tensor]] = []
        for index, item in enumerate(self._read_items(rng)):
            if index % parts != part:
                continue
            rows.append(self._convert(index, item))
            if len(rows) == _ROWS:
                yield self._combine(rows)
                rows = []
        if rows:
            yield self._combine(rows)

    def _read_items(self, rng: Rng) -> Iterator[Any]:
        """Iterates over the items; torch's generator is seeded only while the dataset makes one."""
        items = iter(self._dataset)
        for index in count():
            with rng.at(index).seed_torch():
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item

    def _count(self) -> int:
        total = sum(1 for _, _ in zip(range(_COUNTED), self._read_items(Rng(0, "count"))))
        if total == _COUNTED:
            raise ValueError(
                f"{type(self._dataset).__name__} expects a length, which a stream of {_COUNTED:,} items or more cannot "
                "be counted for: define `__len__`, the items of a pass"
            )
        return total

    def _combine(self, rows: list[dict[str, Tensor]]) -> Batch:
        columns = {name: torch.stack([row[name] for row in rows]) for name in ("x", *self.fields)}
        return Batch(columns.pop("x"), columns)
