"""Threads: with how many of the CPU's threads a stage computes, chosen by the size of its steps.

    threads = clamp(FLOPs of a step / 1e9, 1, torch's own number / processes)

A core takes about 20 ms for 1e9 FLOPs of small layers: below it, waking another thread costs about what it saves, and
beside another process more. No clock is read, so that the same seed has the same bits: sums in another order differ in
their last bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch

__all__ = ["choose_threads", "use_threads"]

_SHARE = 1e9  # FLOPs of a step for each thread


def choose_threads(
    asked: int | Literal["auto"], flops: Sequence[float], kept: Sequence[int] = (), processes: int = 1
) -> tuple[int, ...]:
    """Chooses the number of threads of each stage.

    Args:
        asked: The setting: a number for all stages, or `auto`, over which `OMP_NUM_THREADS` wins if it is set.
        flops: FLOPs of a step of each stage in one process; 0 if they are unknown, which leaves torch's number.
        kept: The numbers of a run that is resumed, which `auto` keeps.
        processes: Number of processes that share this machine.

    Examples:
        >>> choose_threads(3, flops=[1e9, 1e12])
        (3, 3)
    """
    own = torch.get_num_threads()
    if asked != "auto" or "OMP_NUM_THREADS" in os.environ:
        return (own if asked == "auto" else asked,) * len(flops)
    most = max(1, own // processes)
    chosen = [min(most, max(1, int(one / _SHARE))) if one else most for one in flops]
    return (*kept[: len(flops)], *chosen[len(kept) :])


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
