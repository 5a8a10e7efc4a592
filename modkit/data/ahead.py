"""One batch ahead: while a step uses a batch, a thread receives the next and starts copying it to the device.

Receiving a batch from the processes that read takes milliseconds, since torch sends a file descriptor for each tensor.
On CUDA, batches in pinned memory are copied on a stream of their own, beside the step.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from modkit.types import Batch

__all__ = ["read_ahead"]


def read_ahead(batches: Iterator[Batch], device: torch.device | str) -> Generator[Batch, None, None]:
    """Yields batches on a device; each is taken from `batches` while the one before it is used.

    What `batches` raises is raised where the batch would come. Closing the generator ends the thread, after the batch
    that it is waiting for.

    Examples:
        >>> batches = iter([Batch(torch.zeros(2, 1), {}), Batch(torch.ones(2, 1), {})])
        >>> [float(batch.tensor.sum()) for batch in read_ahead(batches, "cpu")]
        [0.0, 2.0]
    """
    on_cuda = torch.device(device).type == "cuda"
    stream = torch.cuda.Stream(device) if on_cuda else None

    def take() -> tuple[Batch, torch.cuda.Event | None] | None:
        batch = next(batches, None)
        if batch is None:
            return None
        if stream is None:
            return batch, None
        with torch.cuda.stream(stream):
            return batch.to(device), stream.record_event()

    with ThreadPoolExecutor(1, thread_name_prefix="modkit-batches") as pool:
        coming = pool.submit(take)
        while (taken := coming.result()) is not None:
            coming = pool.submit(take)
            batch, copied = taken
            if copied is not None:
                _await_copy(batch, copied, torch.cuda.current_stream(device))
            yield batch


def _await_copy(batch: Batch, copied: torch.cuda.Event, stream: torch.cuda.Stream) -> None:
    """Lets a stream use a batch that another one copies: it waits for the copy, and the memory is kept until then."""
    stream.wait_event(copied)

    def record(value: Tensor) -> Tensor:
        value.record_stream(stream)
        return value

    batch.map(record)
