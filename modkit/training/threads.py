"""Threads: with how many of the CPU's threads training computes, chosen by the size of a step.

    threads = clamp(FLOPs of a step / 2.5e8, 1, torch's own number / processes)

2.5e8 FLOPs take a core about 5 ms, an estimate: below it, waking another thread costs more than it saves. No clock is
read, so that the same seed has the same bits: sums in another order differ in their last bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

__all__ = ["choose_threads", "use_threads"]

_SHARE = 2.5e8  # FLOPs of a step for each thread


def choose_threads(asked: int | Literal["auto"], flops: float, kept: object = None, processes: int = 1) -> int:
    """Chooses the number of threads.

    Args:
        asked: The setting: a number, or `auto`. With `auto`, `OMP_NUM_THREADS` is respected if it is set, then the
            number of a run that is resumed.
        flops: FLOPs of the largest step in one process; 0 if they are unknown, which leaves torch's number.
        kept: The number in the lock of a run that is resumed.
        processes: Number of processes that share this machine.

    Examples:
        >>> choose_threads(3, flops=1e9)
        3
    """
    own = torch.get_num_threads()
    if asked != "auto":
        return asked
    if "OMP_NUM_THREADS" in os.environ:
        return own
    if isinstance(kept, int):
        return max(1, kept)
    most = max(1, own // processes)
    return min(most, max(1, int(flops / _SHARE))) if flops else most


@contextmanager
def use_threads(num: int) -> Iterator[None]:
    """Computes with a number of threads within the context.

    Examples:
        >>> with use_threads(1):
        ...     torch.get_num_threads()
        1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(num)
    try:
        yield
    finally:
        torch.set_num_threads(before)
