"""Processes as threads, which start quickly: each has an engine whose exchanges wait for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from modkit.engines.local import LocalEngine

__all__ = ["run_together"]


class _Member(LocalEngine):
    def __init__(self, rank: int, given: list[Any], barrier: threading.Barrier) -> None:
        super().__init__("cpu")
        self.rank, self.world, self._given, self._barrier = rank, len(given), given, barrier

    def gather(self, value: Tensor) -> Tensor:
        """Gathers the rows of all threads."""
        self._given[self.rank] = value
        self._barrier.wait()
        every = torch.cat(self._given)
        self._barrier.wait()
        return every


def run_together(act: Callable[[LocalEngine], Any], world: int) -> list[Any]:
    """Runs a function in so many threads, given the engine of each; returns their results."""
    given, barrier = [None] * world, threading.Barrier(world, timeout=60)
    with ThreadPoolExecutor(world) as pool:
        return list(pool.map(act, [_Member(rank, given, barrier) for rank in range(world)]))
