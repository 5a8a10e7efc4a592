"""Precision: autocast for losses, and at least float32 for sums over many elements, exponentials and distances."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cast_losses", "widen"]


def cast_losses(device: torch.device, precision: str) -> torch.autocast:
    """Returns the context in which losses are computed: torch's autocast if `precision` is `bf16`.

    Examples:
        >>> with cast_losses(torch.device("cpu"), "bf16"):
        ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
        torch.bfloat16
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def widen(value: Tensor) -> Tensor:
    """Converts `value` to float32 if its dtype is narrower; float64 stays float64.

    Examples:
        >>> widen(torch.zeros(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return value.to(torch.promote_types(value.dtype, torch.float32))
