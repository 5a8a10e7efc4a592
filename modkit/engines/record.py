"""Where each process of a group is, and what ended it: kept beside the exchanges, in the store that the group has.

An exchange that fails says that another process is gone or silent, but neither which nor why. A process that fails
writes its error and leaves at once, without an exchange. Those that wait for it read what it wrote, and each waiting
process records that it is waiting; a process that records neither an error nor a wait is presumed dead. While all goes
well, a process writes its place once in a while: one that is killed was there, or has gone on from there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from torch.distributed import DistError
from torch.distributed.distributed_c10d import PrefixStore, Store

__all__ = ["ProcessRecord"]

_PERIOD = 1.0  # seconds between two places that a process writes; a thousand processes share one store
_PATIENCE = 3.0  # seconds in which others that wait as well are expected to say so


@dataclass(frozen=True)
class _Entry:
    """What one process has written."""

    place: str
    error: str = ""
    waited: bool = False

    @property
    def ended(self) -> bool:
        """Whether the process reads no more."""
        return self.waited or self.error != ""


class ProcessRecord:
    """The entries of the processes of a group.

    Args:
        store: The group's store.
        rank: Number of this process.
        world: Number of processes.
        period: Seconds from one place that is written to the next.

    Examples:
        >>> import torch
        >>> store = torch.distributed.HashStore()
        >>> first, second = ProcessRecord(store, 0, 2), ProcessRecord(store, 1, 2)
        >>> second.announce("step 7")
        >>> second.fail(ValueError("no such picture"))
        >>> first.find_fault()
        'process 1 failed at step 7: ValueError: no such picture'
    """

    def __init__(self, store: Store, rank: int, world: int, *, period: float = _PERIOD) -> None:
        self._store = PrefixStore("modkit", store)
        self._rank, self._world, self._period = rank, world, period
        self._write(_Entry("its start"))

    def announce(self, place: str) -> None:
        """Keeps where this process is now, and writes it unless another place was written less than a period ago."""
        self._entry = _Entry(place)
        if time.monotonic() >= self._written + self._period:
            self._write(self._entry)

    def fail(self, error: BaseException) -> None:
        """Writes the error that ends this process, unless it has been explained already."""
        if not self._entry.ended:
            with suppress(DistError):  # the keeper of the record has ended
                self._write(replace(self._entry, error=f"{type(error).__name__}: {error}"))

    def find_fault(self) -> str | None:
        """Finds which process made an exchange fail, where it was, and its error; None if all wait as this one does."""
        try:
            self._write(replace(self._entry, waited=True))
            for others in self._read_others():
                failed = [f"process {rank} failed at {one.place}: {one.error}" for rank, one in others if one.error]
                gone = [(rank, one.place) for rank, one in others if not one.ended]
                if failed or len(gone) < 2:
                    break
        except DistError:
            return f"process 0, or the launcher, has ended since {self._entry.place}"
        found = failed or [f"process {rank} has not been heard of: it was at or after {place}" for rank, place in gone]
        return "; ".join(found) or None

    def _read_others(self) -> Iterator[list[tuple[int, _Entry]]]:
        """Yields the entries of the others, again and again for as long as any should take to end."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            ranks = [rank for rank in range(self._world) if rank != self._rank and self._store.check([str(rank)])]
            yield [(rank, _Entry(**json.loads(self._store.get(str(rank))))) for rank in ranks]
            time.sleep(0.1)

    def _write(self, entry: _Entry) -> None:
        self._entry, self._written = entry, time.monotonic()
        self._store.set(str(self._rank), json.dumps(asdict(entry)))
