"""Tables of many samples: in memory up to a limit, beyond it in a memory-mapped temporary file.

The file is made in `TMPDIR` and unlinked at once, so that a killed process leaves nothing behind.
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch
from torch import Tensor

__all__ = ["LIMIT", "allocate", "count_bytes"]

LIMIT = 2**30
"""Bytes of a table that are kept in memory by default."""


def allocate(num: int, dim: int, dtype: torch.dtype = torch.float32, *, limit: int = LIMIT) -> Tensor:
    """Allocates a table, `n d`, on the CPU, of any values.

    Args:
        num: Number n of rows.
        dim: Number d of columns.
        dtype: Type of the values, one that NumPy has as well.
        limit: Bytes that may be in memory.

    Examples:
        >>> allocate(3, 2).shape
        torch.Size([3, 2])
    """
    if count_bytes(num, dim, dtype) <= limit:
        return torch.empty(num, dim, dtype=dtype)
    kind = torch.empty(0, dtype=dtype).numpy().dtype
    with tempfile.TemporaryFile() as file:
        return torch.from_numpy(np.memmap(file, dtype=kind, mode="w+", shape=(num, dim)))


def count_bytes(num: int, dim: int, dtype: torch.dtype = torch.float32) -> int:
    """Counts the bytes of a table, `n d`."""
    return num * dim * dtype.itemsize
