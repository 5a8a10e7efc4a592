"""The order of a data set: which samples make up which batch, as a function of (key, step, row) without iterator state.

    sample n of a stage = order_e[n mod N]        e = n div N;  batch s holds n = s B … (s + 1) B - 1

`order_e` is the permutation of the N samples seeded by (key, e). So any rows of any batch can be read anywhere: by a
rank, for a microbatch, after resuming, in a worker. A batch may cross the boundary of an epoch. Augmentation draws from
an `Rng` of (key, e), from which a data set takes a child for each index. Workers send what `Data.read` returns; batches
are finished (`DataExtras.finish`) on the device.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import lru_cache
from itertools import count, repeat
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import Dataset

from modkit.data.splits import check_indexed, check_split, concatenate_batches, finish_batch, is_stream
from modkit.data.stream import StreamReader
from modkit.data.workers import Device, check_workers, make_batches
from modkit.kinds import Data
from modkit.rng import Rng
from modkit.types import Batch, NonNegativeInt, PositiveInt, checked

__all__ = ["Loader", "View", "draw_permutation", "find_share", "read_in_order", "read_shuffled"]

Request: TypeAlias = list[tuple[int, list[int]]]  # indices by epoch, in the order of the batch's rows


class View(Protocol):
    """What an epoch reads: a data set, or what was made of it before, with the same indices."""

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`."""
        ...


@checked
class Loader:
    """An endless sequence of batches for a training stage.

    Args:
        data: The data set.
        split: The split.
        batch_size: Number of rows of a global batch; it may exceed the size of the split.
        rng: Key of the order and of augmentation, the same on every rank.
        views: What epochs read in place of the data: epoch e reads view e mod their number.
        workers: Number of processes that read ahead in `read_batches`; 0 reads in this process. Batches are the same.
        device: Where batches are finished.

    Raises:
        ValueError: If the split is unknown or empty, or a number is out of range.

    Examples:
        >>> from modkit.data import Grid
        >>> loader = Loader(Grid(num=6, num_test=1), "train", 4, Rng(0))
        >>> torch.equal(loader.read_batch(1).tensor[2:], loader.read_batch(1, first=2).tensor)
        True
    """

    def __init__(
        self,
        data: Data,
        split: str,
        batch_size: PositiveInt,
        rng: Rng,
        *,
        views: Sequence[View] = (),
        workers: NonNegativeInt = 0,
        device: Device = "cpu",
    ) -> None:
        _check(data, split, workers)
        self.batch_size = batch_size
        self._data, self._split, self._size = data, split, data.splits[split]
        views = views or (data,)
        self._reader, self._owner = _Reader(views, split, rng.at("augment").draw_seed()), views[0]
        seed = self._seed = rng.at("order").draw_seed()
        self._draw_order = lru_cache(maxsize=2)(lambda epoch: draw_permutation(Rng(seed, epoch), self._size))
        self._workers, self._device = workers, device

    def read_batch(self, step: int, first: int = 0, num: int | None = None) -> Batch:
        """Reads rows [first, first + num) of the batch of `step`; up to its end if `num` is None.

        Raises:
            ValueError: If the batch has no such rows, the step is negative, or the data are a stream.
        """
        check_indexed(self._data, "read_batch")
        batch = self._reader[self._make_request(step, first, num)]
        return finish_batch(self._owner, batch.to(self._device))

    def read_batches(self, start: int = 0, first: int = 0, num: int | None = None) -> Generator[Batch, None, None]:
        """Yields `read_batch(step, first, num)` for each step from `start`; closing the generator ends the workers.

        Of a stream, it yields `num` rows for each step, from share `first / num` of `batch_size / num` shares; what is
        read from another `start` has another order.

        Raises:
            ValueError: If a batch has no such rows, or `start` is negative.
        """
        if is_stream(self._data):
            return self._stream(start, first, self.batch_size - first if num is None else num)
        requests = (self._make_request(step, first, num) for step in count(start))
        return make_batches(self._reader, self._owner, requests, self._workers, self._device)

    def read_epoch(self, epoch: int, indices: Sequence[int]) -> Generator[Batch, None, None]:
        """Yields the samples at `indices` in their order, as an epoch reads them, up to `batch_size` at a time.

        Raises:
            ValueError: If the data are a stream.
        """
        check_indexed(self._data, "read_epoch")
        size = self.batch_size
        requests = ([(epoch, list(indices[first : first + size]))] for first in range(0, len(indices), size))
        return make_batches(self._reader, self._owner, requests, self._workers, self._device)

    def _stream(self, start: int, first: int, num: int) -> Generator[Batch, None, None]:
        if start < 0 or num < 1 or first % num or self.batch_size % num or not 0 <= first < self.batch_size:
            raise ValueError(
                f"Loader expects equal shares of batches of {self.batch_size} from a stream, and steps >= 0, "
                f"got rows [{first}, {first + num}) from step {start}"
            )
        rank, world, seed = first // num, self.batch_size // num, Rng(self._seed, start).draw_seed()
        reader = StreamReader(self._data, self._split, seed, rank=rank, world=world, endless=True)
        return make_batches(reader, self._owner, repeat((num, slice(None))), self._workers, self._device)

    def _make_request(self, step: int, first: int, num: int | None) -> Request:
        num = self.batch_size - first if num is None else num
        if step < 0 or first < 0 or num < 1 or first + num > self.batch_size:
            rows = f"rows [{first}, {first + num}) of step {step}"
            raise ValueError(f"Loader expects rows within batches of {self.batch_size} and steps >= 0, got {rows}")
        position, stop = step * self.batch_size + first, step * self.batch_size + first + num
        request: Request = []
        while position < stop:
            epoch, offset = divmod(position, self._size)
            taken = min(stop - position, self._size - offset)
            request.append((epoch, self._draw_order(epoch)[offset : offset + taken].tolist()))
            position += taken
        return request


@checked
def read_shuffled(
    data: Data,
    split: str,
    batch_size: PositiveInt,
    rng: Rng,
    *,
    workers: NonNegativeInt = 0,
    device: Device = "cpu",
    rank: int = 0,
    world: int = 1,
) -> Generator[Batch, None, None]:
    """Yields each sample of a split once, in an order seeded by `rng`; the last batch may be smaller.

    Of several processes, each is given the rows of `find_share` of every batch.

    Raises:
        ValueError: If the split is unknown or empty, or a number is out of range.
    """
    _check(data, split, workers)
    if is_stream(data):
        return _stream_pass(data, split, batch_size, rng, workers, device, rank, world)
    order = draw_permutation(Rng(rng.at("order").draw_seed(), 0), data.splits[split])
    return _read_pass(data, split, order, batch_size, rng, workers, device, rank, world)


@checked
def read_in_order(
    data: Data, split: str, batch_size: PositiveInt, rng: Rng, *, workers: NonNegativeInt = 0, device: Device = "cpu"
) -> Generator[Batch, None, None]:
    """Yields each sample of a split once, in the order of indices; the last batch may be smaller.

    A stream is read in an order drawn from `rng`.

    Raises:
        ValueError: If the split is unknown or empty, or a number is out of range.
    """
    _check(data, split, workers)
    if is_stream(data):
        return _stream_pass(data, split, batch_size, rng, workers, device)
    return _read_pass(data, split, torch.arange(data.splits[split]), batch_size, rng, workers, device)


class _Reader(Dataset[Batch]):
    """Maps requests to batches, in this process or a worker."""

    def __init__(self, views: Sequence[View], split: str, seed: int) -> None:
        self._views, self._split, self._seed = views, split, seed

    def __getitem__(self, request: Request) -> Batch:
        return concatenate_batches(
            [
                self._views[epoch % len(self._views)].read(self._split, indices, Rng(self._seed, epoch))
                for epoch, indices in request
            ]
        )


def _read_pass(
    data: Data,
    split: str,
    order: Tensor,
    batch_size: int,
    rng: Rng,
    workers: int,
    device: Device,
    rank: int = 0,
    world: int = 1,
) -> Generator[Batch, None, None]:
    reader = _Reader((data,), split, rng.at("augment").draw_seed())
    requests = (
        [(0, rows[list(find_share(len(rows), rank, world))].tolist())] for rows in torch.split(order, batch_size)
    )
    return make_batches(reader, data, requests, workers, device)


def _stream_pass(
    data: Data, split: str, batch_size: int, rng: Rng, workers: int, device: Device, rank: int = 0, world: int = 1
) -> Generator[Batch, None, None]:
    """Yields this process's rows of the batches of one pass, which one worker reads, if there is any."""
    sizes = [min(batch_size, data.splits[split] - start) for start in range(0, data.splits[split], batch_size)]
    shares = (find_share(size, rank, world) for size in sizes)
    requests = [(size, slice(share.start, share.stop)) for size, share in zip(sizes, shares)]
    reader = StreamReader(data, split, rng.at("order").draw_seed())
    return make_batches(reader, data, requests, min(workers, 1), device)


def find_share(num: int, rank: int, world: int) -> range:
    """Finds a process's rows of a batch of `num`: as many in each process, so that those of the last may overlap.

    Examples:
        >>> [list(find_share(5, rank, 3)) for rank in range(3)]
        [[0, 1], [2, 3], [3, 4]]
    """
    size = -(-num // world)
    first = min(rank * size, num - size)
    return range(first, first + size)


def draw_permutation(rng: Rng, size: int) -> Tensor:
    """Draws a permutation of [0, size) by 31-bit keys; ties are rare and keep their order."""
    keys = rng.integers("order", torch.empty(1, size), 0, 2**31)[0]
    return keys.argsort(stable=True)


def _check(data: Data, split: str, workers: int) -> None:
    check_split(data, split)
    if data.splits[split] < 1:
        raise ValueError(f"{type(data).__name__} expects samples in split {split!r}, got none")
    check_workers(workers)
