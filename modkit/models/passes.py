"""Passes: values that can be iterated over several times, such as the batches from which a Model is prepared.

Several processes share the work of a pass: each reads and maps rows of its own of every batch, and iterates over whole
batches, which are those of one process. So what a Model computes from them is the same in all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from torch import Tensor

from modkit.data.loader import find_share
from modkit.kinds import Exchange
from modkit.types import Batch

__all__ = ["Passes", "SharedPasses", "map_batches"]

T = TypeVar("T")
V = TypeVar("V")


class Passes(Iterable[T]):
    """Values that can be iterated over several times, in passes that a function starts."""

    def __init__(self, start: Callable[[], Iterator[T]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[T]:
        return self._start()


class SharedPasses(Passes[Batch]):
    """Passes over batches, of which each process reads its share.

    Args:
        start: Starts a pass: yields the number of rows of a batch, and those of `find_share` for this process.
        exchange: The processes.
    """

    def __init__(self, start: Callable[[], Iterator[tuple[int, Batch]]], exchange: Exchange) -> None:
        super().__init__(lambda: iter(self.map(lambda batch, first: batch)))
        self._start_shares, self._exchange = start, exchange

    def map(self, compute: Callable[[Batch, int], V]) -> Passes[V]:
        """Computes something of each row, by shares; each process gets all of it."""

        def start() -> Iterator[V]:
            rank, world, before = self._exchange.rank, self._exchange.world, 0
            for num, batch in self._start_shares():
                mine = compute(batch, before + find_share(num, rank, world)[0])
                yield mine if world == 1 else _gather(mine, num, self._exchange)
                before += num

        return Passes(start)


def map_batches(batches: Iterable[Batch], compute: Callable[[Batch, int], V]) -> Iterable[V]:
    """Computes something of each row of some batches; processes share the work where they share the batches.

    Args:
        batches: The batches.
        compute: Computes rows (a tensor, a hierarchy or a batch) from a batch and the number of its first row.

    Examples:
        >>> import torch
        >>> batches = [Batch(torch.ones(2, 1), {}), Batch(torch.ones(1, 1), {})]
        >>> [first.tolist() for first in map_batches(batches, lambda batch, first: first * batch.tensor)]
        [[[0.0], [0.0]], [[2.0]]]
    """
    if isinstance(batches, SharedPasses):
        return batches.map(compute)

    def start() -> Iterator[V]:
        first = 0
        for batch in batches:
            yield compute(batch, first)
            first += len(batch)

    return Passes(start)


def _gather(mine: Any, num: int, exchange: Exchange) -> Any:
    """Gathers the rows of a batch of `num` rows from their shares, which may overlap."""
    shares = [find_share(num, rank, exchange.world) for rank in range(exchange.world)]
    size = len(shares[0])
    rows = [row // size * size + row - shares[row // size][0] for row in range(num)]

    def gather(value: Tensor) -> Tensor:
        filled = value.numel() > 0  # nothing is sent of tensors without values
        return exchange.gather(value.contiguous())[rows] if filled else value.new_empty(num, *value.shape[1:])

    if isinstance(mine, Batch):
        x, fields = _gather(mine.x, num, exchange), {name: gather(one) for name, one in mine.fields.items()}
        return Batch(x, fields, mine.cond.map(gather))
    return tuple(map(gather, mine)) if isinstance(mine, tuple) else gather(mine)
