"""Metrics that store features by the sample's index, so that the order of arrival never changes a result.

Rows are float32, O(n d). Up to a limit they are in memory; beyond it they are in memory-mapped temporary files.

Shape letters: b batch, n samples, d features.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modkit.metrics.mapped import LIMIT, allocate, count_bytes
from modkit.metrics.streaming import Streaming
from modkit.types import PositiveInt, checked

__all__ = ["StoredMetric", "Rows", "Store", "Stores"]

Rows = tuple[Tensor, Tensor]
"""Indices, `n`, and values, `n d`."""


@checked
class Store:
    """Rows of features by sample index; any order of `add` and `merge` gives the same result of `sort`.

    Rows are on the CPU; `device` names the device that scores may be computed on, at first the one that they came from.

    Args:
        dim: Number d of features.
        limit: Number of bytes stored in memory; beyond it, rows are in mapped files.

    Raises:
        ValueError: If `dim` is not positive.

    Examples:
        >>> store = Store(1)
        >>> store.add(torch.tensor([1, 0]), torch.tensor([[5.0], [4.0]]))
        >>> store.sort()
        (tensor([0, 1]), tensor([[4.],
                [5.]]))
    """

    def __init__(self, dim: PositiveInt, *, limit: int = LIMIT) -> None:
        self.dim, self.limit = dim, limit
        self.device = "cpu"
        self._blocks: list[Rows] = []  # in memory
        self._mapped: list[Rows] = []

    def __len__(self) -> int:
        return sum(len(indices) for indices, _ in self._blocks + self._mapped)

    def add(self, indices: Tensor, values: Tensor) -> None:
        """Stores a copy of `values`, `b d`, as float32 under the samples' `indices`, `b`.

        Raises:
            ValueError: If shapes do not match or a value is not finite.
        """
        if values.ndim != 2 or values.shape[1] != self.dim or indices.shape != values.shape[:1]:
            received = f"{tuple(values.shape)} and indices {tuple(indices.shape)}"
            raise ValueError(f"Store expects values of shape (b, {self.dim}) and indices (b,), got {received}")
        kept = values.detach().to("cpu", torch.float32, copy=True)
        if not bool(torch.isfinite(kept).all()):
            raise ValueError("Store expects finite values, got NaN or infinity")
        self._blocks.append((indices.detach().to("cpu", torch.int64, copy=True), kept))
        self.device = str(values.device)
        self._spill()

    def merge(self, other: Store) -> Store:
        """Merges two stores; neither changes, and no row is copied.

        Raises:
            ValueError: If the numbers of features differ.
        """
        if self.dim != other.dim:
            raise ValueError(f"Store.merge expects as many features, got {self.dim} and {other.dim}")
        merged = Store(self.dim, limit=self.limit)
        merged.device = other.device
        merged._blocks = self._blocks + other._blocks
        merged._mapped = self._mapped + other._mapped
        merged._spill()
        return merged

    def sort(self) -> tuple[Tensor, Tensor]:
        """Returns (indices, values), `n` and `n d`, by ascending index; callers must not change the values.

        Raises:
            ValueError: If an index was added twice.
        """
        blocks = self._mapped + self._blocks
        if len(blocks) > 1 or not _is_ascending(blocks):
            indices = torch.cat([indices for indices, _ in blocks]) if blocks else torch.empty(0, dtype=torch.int64)
            ordered, order = indices.sort()
            twice = ordered[1:][ordered[1:] == ordered[:-1]]
            if len(twice):
                raise ValueError(f"Store expects each sample once, got index {int(twice[0])} twice")
            place = torch.empty_like(order)
            place[order] = torch.arange(len(order))
            self._replace(ordered, self._gather([values for _, values in blocks], place))
        ((indices, values),) = self._mapped + self._blocks
        return indices, values

    def _gather(self, blocks: list[Tensor], place: Tensor) -> Tensor:
        """Concatenates the rows of `blocks`, each row at its `place`."""
        values = allocate(len(place), self.dim, limit=self.limit)
        first = 0
        for block in blocks:
            values[place[first : first + len(block)]] = block
            first += len(block)
        return values

    def _replace(self, indices: Tensor, values: Tensor) -> None:
        fits = count_bytes(len(indices), self.dim) <= self.limit
        self._blocks, self._mapped = ([(indices, values)], []) if fits else ([], [(indices, values)])

    def _spill(self) -> None:
        """Moves the rows in memory to a mapped file once they exceed the limit."""
        num = sum(len(indices) for indices, _ in self._blocks)
        if count_bytes(num, self.dim) > self.limit:
            indices = torch.cat([indices for indices, _ in self._blocks])
            self._mapped.append((indices, self._gather([values for _, values in self._blocks], torch.arange(num))))
            self._blocks = []


Stores = dict[str, Store]
"""The state of a `StoredMetric`: a store for each set."""


class StoredMetric(Streaming[Store]):
    """Base of metrics that store one value of each sample; a subclass names the value and the sets, and scores them.

    `needs` names the value, `b ...`, which is stored flattened; `rows` gives all of it to `result`. `fewest` is the
    smallest number of samples of a set; with fewer than `enough`, the ten groups that give standard errors have fewer
    than ten samples each.
    """

    fewest: int = 2
    enough: int = 100

    def measure(self, values: Mapping[str, Tensor], indices: Tensor) -> Store:
        """Stores the value that `needs` names, `b ...`.

        Raises:
            ValueError: If shapes do not match or a value is not finite.
        """
        (name,) = self.needs
        flat = values[name].reshape(len(values[name]), -1)
        store = Store(flat.shape[1])
        store.add(indices, flat)
        return store

    def add(self, a: Store, b: Store) -> Store:
        """Merges stores."""
        return a.merge(b)

    def place(self, state: Stores, device: torch.device) -> Stores:
        """Returns the state, of which `result` may compute on the device."""
        for store in state.values():
            store.device = str(device)
        return state

    def rows(self, state: Stores, *, least: int | None = None) -> dict[str, Rows]:
        """Returns (indices, values) of each set, by ascending index.

        Raises:
            ValueError: If a set has fewer than `least` samples, by default `fewest`, or one was added twice.
        """
        least = self.fewest if least is None else least
        for name in self.sets:
            count = len(state[name]) if name in state else 0
            if count < least:
                message = f"{type(self).__name__} expects at least {least} samples of {name!r}, got {count}"
                raise ValueError(message)
        return {name: state[name].sort() for name in self.sets}


def _is_ascending(blocks: list[Rows]) -> bool:
    return bool(blocks) and bool((blocks[0][0].diff() > 0).all())
