"""Precision of computations that need at least float32: sums over many elements, exponentials, distances."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["widen"]


def widen(value: Tensor) -> Tensor:
    """Converts `value` to float32 if its dtype is narrower; float64 stays float64.

    Examples:
        >>> widen(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return value.to(torch.promote_types(value.dtype, torch.float32))
