"""Determinism: training that is repeated or resumed gives the same bits if every operation does.

Some of torch's operations add up in the order in which threads get there, unless they are told otherwise: the gradient
of `table[index]` on the CPU, `index_add_`, cuBLAS and some of cuDNN's convolutions on CUDA.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch.utils import deterministic

__all__ = ["use_deterministic"]

_FLAGS: Any = deterministic  # a module with an attribute that its stub lacks


class _Setting:
    """Torch's flags, set from the first holder to the last: trainings in several threads share them."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._before = (False, False, True)

    def hold(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            enabled = torch.are_deterministic_algorithms_enabled()
            warns = torch.is_deterministic_algorithms_warn_only_enabled()
            self._before = enabled, warns, _FLAGS.fill_uninitialized_memory
            torch.use_deterministic_algorithms(True, warn_only=warns or not enabled)
            _FLAGS.fill_uninitialized_memory = False  # it would take time and is for what reads memory not written

    def release(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            enabled, warns, _FLAGS.fill_uninitialized_memory = self._before
            torch.use_deterministic_algorithms(enabled, warn_only=warns)


_SETTING = _Setting()


@contextmanager
def use_deterministic(device: torch.device) -> Iterator[None]:
    """Makes torch use deterministic algorithms meanwhile; it warns of operations that have none.

    If the caller has told torch to refuse such operations, it goes on refusing them. Of several threads or contexts
    inside, the last to leave restores what was set before the first.

    Args:
        device: The device that is computed on. On CUDA, `CUBLAS_WORKSPACE_CONFIG` is set if it is not, which has an
            effect if nothing has been multiplied there before.

    Examples:
        >>> with use_deterministic(torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled()
        True
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _SETTING.hold()
    try:
        yield
    finally:
        _SETTING.release()
