"""Data that cannot be read by index: each process, and each worker of it, reads a share of its own of a stream.

    share w + W r of W R        worker w of W in process r of R, which reads every W-th batch of the process

A share is read pass after pass, each in an order of its own. So training on a stream is inexact: a resumed run begins a
new pass, other numbers of processes or workers read other orders, and shares may differ in length. A single pass, as
`prepare` reads, is the same in any world: each process reads all of it, and keeps its rows of each batch.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from torch.utils.data import Dataset, get_worker_info

from modkit.data.splits import concatenate_batches
from modkit.kinds import Data, DataExtras, read_extras
from modkit.rng import Rng
from modkit.types import Batch

__all__ = ["StreamReader"]


class StreamReader(Dataset[Batch]):
    """Reads the next rows of a stream, in this process or a worker.

    Args:
        data: The data set, a stream.
        split: The split.
        seed: Key of the orders.
        rank: Number of this process.
        world: Number of processes that share the stream.
        endless: Whether pass follows pass; otherwise there is one, of as many rows as the split states.

    Raises:
        ValueError: If the data are no stream.
    """

    def __init__(
        self, data: Data, split: str, seed: int, *, rank: int = 0, world: int = 1, endless: bool = False
    ) -> None:
        stream = read_extras(data, DataExtras).stream
        if stream is None:
            raise ValueError(f"StreamReader expects a stream, got {type(data).__name__}")
        self._data, self._stream, self._split, self._seed = data, stream, split, seed
        self._rank, self._world, self._endless = rank, world, endless
        self._batches: Iterator[Batch] | None = None  # begins where it is read: in a worker
        self._left: Batch | None = None

    def __getitem__(self, request: tuple[int, slice]) -> Batch:
        """Reads the next rows, and returns those of a slice.

        Raises:
            ValueError: If the stream has fewer rows than its split states, or a share of it has none.
        """
        num, kept = request
        if self._batches is None:
            self._batches = self._start()
        taken: list[Batch] = []
        while num:
            batch = self._left or next(self._batches)
            taken.append(batch.rows(slice(num)))
            num -= len(taken[-1])
            rest = batch.rows(slice(len(taken[-1]), None))
            self._left = rest if len(rest) else None
        return concatenate_batches(taken).rows(kept)

    def _start(self) -> Iterator[Batch]:
        worker = get_worker_info()
        id, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        part, parts = self._rank * workers + id, self._world * workers
        for number in count():
            size = 0
            for batch in self._stream(self._split, part, parts, Rng(self._seed, number)):
                yield batch
                size += len(batch)
            if size == 0 or not self._endless:
                raise self._explain_end(size, part, parts)

    def _explain_end(self, size: int, part: int, parts: int) -> ValueError:
        """The error of a share without rows, or of a pass with fewer than the split states."""
        name, stated = type(self._data).__name__, self._data.splits[self._split]
        got = f"got {size:,}" if parts == 1 else f"got {size:,} in share {part} of {parts}"
        expected = "rows in every share" if self._endless else f"{stated:,} rows, as `splits` states,"
        return ValueError(f"{name} expects {expected} of split {self._split!r}, {got}")
