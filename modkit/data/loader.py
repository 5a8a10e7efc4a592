"""The order of a data set: which samples make up which batch, as a function of (key, step, row) without iterator state.

    sample n of a stage = order_e[n mod N]        e = n div N;  batch s holds n = s B … (s + 1) B - 1

`order_e` is the permutation of the N samples seeded by (key, e). So any rows of any batch can be read anywhere: by a
rank, for a microbatch, after resuming, in a worker. A batch may cross the boundary of an epoch. Augmentation draws from
an `Rng` of (key, e), from which a data set takes a child for each index. Workers send what `Data.read` returns; batches
are finished (`DataExtras.finish`) on the device.

Shape letters: b batch.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import lru_cache
from itertools import count
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from modkit.data.ahead import read_ahead
from modkit.data.splits import check_split, finish_batch
from modkit.kinds import Data
from modkit.rng import Rng
from modkit.types import Batch, Value

__all__ = ["Loader", "View", "check_workers", "draw_permutation", "find_share", "read_in_order", "read_shuffled"]

Request: TypeAlias = list[tuple[int, list[int]]]  # indices by epoch, in the order of the batch's rows
_ENDED = "a process that reads data has ended; where memory is short, set fewer train.workers, or 0"
_MOST_WORKERS = 32  # allowed on any machine: each is a process with a share of the memory
Content: TypeAlias = tuple[Value, dict[str, Tensor]]
Device: TypeAlias = "torch.device | str"


class View(Protocol):
    """What an epoch reads: a data set, or what was made of it before, with the same indices."""

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`."""
        ...


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
        batch_size: int,
        rng: Rng,
        *,
        views: Sequence[View] = (),
        workers: int = 0,
        device: Device = "cpu",
    ) -> None:
        _check(data, split, batch_size, workers)
        self.batch_size = batch_size
        self._size = data.splits[split]
        self._reader = _Reader(views or (data,), split, rng.at("augment").draw_seed())
        seed = rng.at("order").draw_seed()
        self._draw_order = lru_cache(maxsize=2)(lambda epoch: draw_permutation(Rng(seed, epoch), self._size))
        self._workers, self._device = workers, device

    def read_batch(self, step: int, first: int = 0, num: int | None = None) -> Batch:
        """Reads rows [first, first + num) of the batch of `step`; up to its end if `num` is None.

        Raises:
            ValueError: If the batch has no such rows, or the step is negative.
        """
        return self._reader.finish(_make_batch(self._reader[self._make_request(step, first, num)]), self._device)

    def read_batches(self, start: int = 0, first: int = 0, num: int | None = None) -> Generator[Batch, None, None]:
        """Yields `read_batch(step, first, num)` for each step from `start`; closing the generator ends the workers.

        Raises:
            ValueError: If a batch has no such rows, or `start` is negative.
        """
        requests = (self._make_request(step, first, num) for step in count(start))
        return _make_batches(self._reader, requests, self._workers, self._device)

    def read_epoch(self, epoch: int, indices: Sequence[int]) -> Generator[Batch, None, None]:
        """Yields the samples at `indices` in their order, as an epoch reads them, up to `batch_size` at a time."""
        size = self.batch_size
        requests = ([(epoch, list(indices[first : first + size]))] for first in range(0, len(indices), size))
        return _make_batches(self._reader, requests, self._workers, self._device)

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


def read_shuffled(
    data: Data,
    split: str,
    batch_size: int,
    rng: Rng,
    *,
    workers: int = 0,
    device: Device = "cpu",
    rank: int = 0,
    world: int = 1,
) -> Generator[Batch, None, None]:
    """Yields each sample of a split once, in an order seeded by `rng`; the last batch may be smaller.

    Of several processes, each is given the rows of `find_share` of every batch.

    Raises:
        ValueError: If the split is unknown or empty, or a number is out of range.
    """
    _check(data, split, batch_size, workers)
    order = draw_permutation(Rng(rng.at("order").draw_seed(), 0), data.splits[split])
    return _read_pass(data, split, order, batch_size, rng, workers, device, rank, world)


def read_in_order(
    data: Data, split: str, batch_size: int, rng: Rng, *, workers: int = 0, device: Device = "cpu"
) -> Generator[Batch, None, None]:
    """Yields each sample of a split once, in the order of indices; the last batch may be smaller.

    Raises:
        ValueError: If the split is unknown or empty, or a number is out of range.
    """
    _check(data, split, batch_size, workers)
    return _read_pass(data, split, torch.arange(data.splits[split]), batch_size, rng, workers, device)


class _Reader(Dataset[Content]):
    """Maps requests to contents, in this process or a worker."""

    def __init__(self, views: Sequence[View], split: str, seed: int) -> None:
        self._views, self._split, self._seed = views, split, seed

    def __getitem__(self, request: Request) -> Content:
        read = [
            self._views[epoch % len(self._views)].read(self._split, indices, Rng(self._seed, epoch))
            for epoch, indices in request
        ]
        if len(read) == 1:
            return read[0].x, dict(read[0].fields)
        fields = {name: torch.cat([batch.fields[name] for batch in read]) for name in read[0].fields}
        return _concatenate([batch.x for batch in read]), fields

    def finish(self, batch: Batch, device: Device) -> Batch:
        """Finishes a batch on a device."""
        return finish_batch(self._views[0], batch.to(device))


class _Failure(NamedTuple):
    """An error in a worker: as torch passes one on, its message is a traceback."""

    kind: type[ValueError | OSError]
    message: str


class _Worker(Dataset[Content | _Failure]):
    """A reader in a worker, which returns errors of the data."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader

    def __getitem__(self, request: Request) -> Content | _Failure:
        try:
            return self._reader[request]
        except (ValueError, OSError) as error:
            return _Failure(ValueError if isinstance(error, ValueError) else OSError, str(error))


def _concatenate(values: list[Value]) -> Value:
    if isinstance(values[0], tuple):
        return tuple(torch.cat(level) for level in zip(*values, strict=True))
    return torch.cat([value for value in values if not isinstance(value, tuple)])


def _make_batches(
    reader: _Reader, requests: Iterable[Request], workers: int, device: Device
) -> Generator[Batch, None, None]:
    if workers == 0:
        for request in requests:
            yield reader.finish(_make_batch(reader[request]), device)
        return
    loader = DataLoader(
        _Worker(reader),
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        collate_fn=_keep,  # type: ignore[arg-type]  # without a batch size it is a content, not a list
        pin_memory=torch.device(device).type == "cuda",
        generator=torch.Generator(),  # otherwise the workers' seed comes from the global generator
    )
    received = _receive(iter(loader))  # forks the workers, before there is a thread
    with closing(read_ahead(received, device)) as batches:
        for batch in batches:
            yield reader.finish(batch, device)


def _receive(contents: Iterator[Content | _Failure]) -> Iterator[Batch]:
    try:
        for content in contents:
            if isinstance(content, _Failure):
                raise content.kind(content.message)
            yield _make_batch(content)
    except (ConnectionError, EOFError) as error:  # torch notices otherwise, but not always first
        raise ChildProcessError(_ENDED) from error


def _make_batch(content: Content) -> Batch:
    x, fields = content
    return Batch(x if isinstance(x, Tensor) else tuple(x), fields)  # pinning turns a tuple into a list


def _keep(content: Content | _Failure) -> Content | _Failure:
    return content


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
    return _make_batches(reader, requests, workers, device)


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


def check_workers(workers: int) -> None:
    """Checks that a number of processes suits this machine.

    Raises:
        ValueError: If there are more than 32, and more than four for each processor.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = max(_MOST_WORKERS, 4 * processors)
    if workers > limit:
        raise ValueError(
            f"train.workers expects at most {limit} processes on this machine of {processors} processors, got {workers}"
        )


def _check(data: Data, split: str, batch_size: int, workers: int) -> None:
    check_split(data, split)
    if data.splits[split] < 1:
        raise ValueError(f"{type(data).__name__} expects samples in split {split!r}, got none")
    if batch_size < 1 or workers < 0:
        raise ValueError(f"Loader expects batch_size >= 1 and workers >= 0, got {batch_size} and {workers}")
    check_workers(workers)
