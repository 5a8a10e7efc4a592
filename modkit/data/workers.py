"""Workers: the processes that read batches, and what comes from them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from typing import Any, NamedTuple, TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset

from modkit.data.ahead import read_ahead
from modkit.data.splits import finish_batch
from modkit.types import Batch

__all__ = ["Device", "check_workers", "make_batches"]

Device: TypeAlias = "torch.device | str"
_ENDED = "a process that reads data has ended; where memory is short, set fewer train.workers, or 0"
_MOST_WORKERS = 32  # allowed on any machine: each is a process with a share of the memory


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


def make_batches(
    reader: Dataset[Batch], owner: object, requests: Iterable[Any], workers: int, device: Device
) -> Generator[Batch, None, None]:
    """Yields the batches that a reader makes of requests, in this process or by workers.

    Args:
        reader: Maps requests to batches; each worker has a copy of it.
        owner: What finishes the batches (`DataExtras.finish`), on the device.
        requests: The requests, each of a batch; workers are given them in turn.
        workers: Number of workers; with any, one batch is received ahead.
        device: The device.
    """
    on_cuda = torch.device(device).type == "cuda"
    if workers == 0:
        for request in requests:
            batch = reader[request].pin_memory() if on_cuda else reader[request]  # else the copy waits for the device
            yield finish_batch(owner, batch.to(device))
        return
    loader = DataLoader(
        _Worker(reader),
        batch_size=None,
        sampler=requests,
        num_workers=workers,
        collate_fn=_keep,  # type: ignore[arg-type]  # without a batch size it is a batch, not a list
        pin_memory=on_cuda,
        generator=torch.Generator(),  # otherwise the workers' seed comes from the global generator
    )
    received = _unpack(iter(loader))  # forks the workers, before there is a thread
    with closing(read_ahead(received, device)) as batches:
        for batch in batches:
            yield finish_batch(owner, batch.to(device))


class _Failure(NamedTuple):
    """An error in a worker: as torch passes one on, its message is a traceback."""

    kind: type[ValueError | OSError]
    message: str


class _Worker(Dataset[Batch | _Failure]):
    """A reader in a worker, which returns errors of the data."""

    def __init__(self, reader: Dataset[Batch]) -> None:
        self._reader = reader

    def __getitem__(self, request: Any) -> Batch | _Failure:
        try:
            return self._reader[request]
        except (ValueError, OSError) as error:
            return _Failure(ValueError if isinstance(error, ValueError) else OSError, str(error))


def _unpack(received: Iterator[Batch | _Failure]) -> Iterator[Batch]:
    try:
        for batch in received:
            if isinstance(batch, _Failure):
                raise batch.kind(batch.message)
            yield batch
    except (ConnectionError, EOFError) as error:  # torch notices otherwise, but not always first
        raise ChildProcessError(_ENDED) from error
    finally:
        del received  # ends the workers: collected as garbage with an error's traceback, torch waits 5 s for each


def _keep(batch: Batch | _Failure) -> Batch | _Failure:
    return batch
