"""Determinism: training that is repeated or resumed gives the same bits if every operation does.

Some of torch's operations add up in the order in which threads get there, unless they are told otherwise: the gradient
of `table[index]` on the CPU, `index_add_`, cuBLAS and some of cuDNN's convolutions on CUDA. Some obey only where torch
refuses what has no deterministic form (`warn_only=False`): on CUDA, the gradient of fused attention adds up in one
order then, and otherwise does not. So torch is told to refuse. Where it does refuse an operation, training begins again
from the last checkpoint and torch warns from there on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

import torch
from torch.utils import deterministic

__all__ = ["find_nondeterministic", "use_deterministic", "warn_instead"]

_FLAGS: Any = deterministic  # a module with an attribute that its stub lacks
_REFUSAL = re.compile(r"(\S+) does not have a deterministic implementation")
_CUBLAS = "not deterministic because it uses CuBLAS"  # whose setting came after its first product


class _Setting:
    """Torch's flags, set from the first holder to the last: trainings in several threads share them."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._before = (False, False, True)

    def hold(self, strict: bool) -> None:
        with self._lock:
            self._inside += 1
            if self._inside > 1:
                return
            enabled = torch.are_deterministic_algorithms_enabled()
            warns = torch.is_deterministic_algorithms_warn_only_enabled()
            self._before = enabled, warns, _FLAGS.fill_uninitialized_memory
            torch.use_deterministic_algorithms(True, warn_only=not strict and (warns or not enabled))
            _FLAGS.fill_uninitialized_memory = False  # it would take time and is for what reads memory not written

    def warn(self) -> bool:
        with self._lock:
            enabled, warns, _ = self._before
            if not self._inside or (enabled and not warns):
                return False
            torch.use_deterministic_algorithms(True, warn_only=True)
            return True

    def release(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside:
                return
            enabled, warns, _FLAGS.fill_uninitialized_memory = self._before
            torch.use_deterministic_algorithms(enabled, warn_only=warns)


_SETTING = _Setting()


@contextmanager
def use_deterministic(device: torch.device, *, strict: bool = True) -> Iterator[None]:
    """Makes torch use deterministic algorithms meanwhile, and refuse operations that have none.

    Of several threads or contexts inside, the first decides, and the last to leave restores what was set before it.

    Args:
        device: The device that is computed on. On CUDA, `CUBLAS_WORKSPACE_CONFIG` is set if it is not, which has an
            effect if nothing has been multiplied there before.
        strict: Whether operations without a deterministic form are refused; otherwise torch warns of them, unless the
            caller has told it to refuse them.

    Examples:
        >>> with use_deterministic(torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        (True, False)
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _SETTING.hold(strict)
    try:
        yield
    finally:
        _SETTING.release()


def find_nondeterministic(error: BaseException) -> str | None:
    """Finds the operation that torch refuses because it has no deterministic form; None for any other error.

    Examples:
        >>> with use_deterministic(torch.device("cpu")):
        ...     try:
        ...         torch.zeros(1).put_(torch.tensor([0]), torch.ones(1))
        ...     except RuntimeError as error:
        ...         print(find_nondeterministic(error))
        put_
    """
    if not isinstance(error, RuntimeError):
        return None
    found = _REFUSAL.search(str(error))
    return found[1] if found else "cuBLAS" if _CUBLAS in str(error) else None


def warn_instead() -> bool:
    """Lets torch warn of operations that have no deterministic form, until the last `use_deterministic` is left.

    Returns:
        Whether it does: it goes on refusing them where the caller has told it to.
    """
    return _SETTING.warn()
