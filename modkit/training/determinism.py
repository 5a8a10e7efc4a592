"""Determinism: training that is repeated or resumed gives the same bits if every operation does.

Some of torch's operations add up in the order in which threads get there, unless they are told otherwise: the gradient
of `table[index]` on the CPU, `index_add_`, cuBLAS and some of cuDNN's convolutions on CUDA.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

__all__ = ["prefer_deterministic"]


@contextmanager
def prefer_deterministic(device: torch.device) -> Iterator[None]:
    """Makes torch use deterministic algorithms meanwhile; it warns of operations that have none.

    If the caller has told torch to refuse such operations, it goes on refusing them.

    Args:
        device: The device that is computed on. On CUDA, `CUBLAS_WORKSPACE_CONFIG` is set if it is not, which has an
            effect if nothing has been multiplied there before.

    Examples:
        >>> with prefer_deterministic(torch.device("cpu")):
        ...     torch.are_deterministic_algorithms_enabled()
        True
    """
    enabled, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fills = deterministic.fill_uninitialized_memory
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=warns or not enabled)
    deterministic.fill_uninitialized_memory = False  # it would take time and is for what reads memory not written
    try:
        yield
    finally:
        deterministic.fill_uninitialized_memory = fills
        torch.use_deterministic_algorithms(enabled, warn_only=warns)
