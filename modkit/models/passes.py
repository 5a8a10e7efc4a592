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

__all__ = ["Passes", "SharedPasses", "count_samples", "map_batches", "select_fields"]

T = TypeVar("T")
V = TypeVar("V")


class Passes(Iterable[T]):
    """Values that can be iterated over several times, in passes that a function starts.

    Args:
        start: Starts a pass.
        fields: Of batches, passes over only their fields, which are faster; None if there are none.
        num: Of batches, the number of their rows in a pass; None if it is unknown.
    """

    def __init__(
        self, start: Callable[[], Iterator[T]], fields: Iterable[T] | None = None, num: int | None = None
    ) -> None:
        self._start, self.fields, self.num = start, fields, num

    def __iter__(self) -> Iterator[T]:
        return self._start()


class SharedPasses(Passes[Batch]):
    """Passes over batches, of which each process reads its share.

    Args:
        start: Starts a pass: yields the number of rows of a batch, and those of `find_share` for this process.
        exchange: The processes.
        fields: Passes over only the fields of the batches; None if there are none.
        num: Number of rows of a pass; None if it is unknown.
    """

    def __init__(
        self,
        start: Callable[[], Iterator[tuple[int, Batch]]],
        exchange: Exchange,
        fields: Iterable[Batch] | None = None,
        num: int | None = None,
    ) -> None:
        super().__init__(lambda: (batch for _, batch in self.share(lambda batch, first: batch)), fields, num)
        self._start_shares, self._exchange = start, exchange

    def share(self, compute: Callable[[Batch, int], V]) -> Iterator[tuple[int, V]]:
        """Computes something of each row, by shares; each process gets all of it, with the number of rows."""
        rank, world, before = self._exchange.rank, self._exchange.world, 0
        for num, batch in self._start_shares():
            mine = compute(batch, before + find_share(num, rank, world)[0])
            yield num, mine if world == 1 else _gather(mine, num, self._exchange)
            before += num


def map_batches(batches: Iterable[Batch], compute: Callable[[Batch, int], V], most: int | None = None) -> Iterable[V]:
    """Computes something of each row of some batches; processes share the work where they share the batches.

    Args:
        batches: The batches.
        compute: Computes rows (a tensor, a hierarchy or a batch) from a batch and the number of its first row.
        most: Number of rows after which a pass ends; None for all.

    Examples:
        >>> import torch
        >>> batches = [Batch(torch.ones(2, 1), {}), Batch(torch.ones(2, 1), {})]
        >>> [one.tolist() for one in map_batches(batches, lambda batch, first: first * batch.tensor, most=3)]
        [[[0.0], [0.0]], [[2.0]]]
    """

    def start() -> Iterator[V]:
        done = 0
        for num, value in batches.share(compute) if isinstance(batches, SharedPasses) else _compute(batches, compute):
            left = num if most is None else min(num, most - done)
            yield value if left == num else _select(value, slice(left))
            done += left
            if done == most:
                return

    return Passes(start)


def select_fields(batches: Iterable[Batch]) -> Iterable[Batch]:
    """Returns passes over the fields of batches, whose samples are left out if that is faster.

    Examples:
        >>> import torch
        >>> whole = [Batch(torch.zeros(1, 2), {"labels": torch.zeros(1)})]
        >>> alone = [Batch(torch.zeros(1, 0), {"labels": torch.zeros(1)})]
        >>> select_fields(Passes(lambda: iter(whole), alone)) is alone, select_fields(whole) is whole
        (True, True)
    """
    return batches.fields if isinstance(batches, Passes) and batches.fields is not None else batches


def count_samples(batches: Iterable[Batch]) -> int:
    """Counts the rows of a pass, without one if their number is known.

    Examples:
        >>> import torch
        >>> whole = [Batch(torch.zeros(2, 1), {}), Batch(torch.zeros(1, 1), {})]
        >>> count_samples(whole), count_samples(Passes(lambda: iter(whole), num=1437))
        (3, 1437)
    """
    known = batches.num if isinstance(batches, Passes) else None
    return sum(map(len, select_fields(batches))) if known is None else known


def _compute(batches: Iterable[Batch], compute: Callable[[Batch, int], V]) -> Iterator[tuple[int, V]]:
    """Yields what `compute` makes of whole batches, with the number of rows."""
    first = 0
    for batch in batches:
        yield len(batch), compute(batch, first)
        first += len(batch)


def _gather(mine: Any, num: int, exchange: Exchange) -> Any:
    """Gathers the rows of a batch of `num` rows from their shares, which may overlap."""
    shares = [find_share(num, rank, exchange.world) for rank in range(exchange.world)]
    size = len(shares[0])
    rows = [row // size * size + row - shares[row // size][0] for row in range(num)]

    def gather(value: Tensor) -> Tensor:
        filled = value.numel() > 0  # nothing is sent of tensors without values
        return exchange.gather(value.contiguous())[rows] if filled else value.new_empty(num, *value.shape[1:])

    return _map_tensors(mine, gather)


def _select(value: Any, rows: slice) -> Any:
    return _map_tensors(value, lambda one: one[rows])


def _map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Changes the rows of a tensor, a hierarchy or a batch."""
    if isinstance(value, Batch):
        return value.map(change)
    return tuple(map(change, value)) if isinstance(value, tuple) else change(value)
