"""Bounds: the values that samples and fields of a type may take."""

from __future__ import annotations

import torch

from modkit.types import TensorType

__all__ = ["find_bounds"]

_LARGEST = torch.finfo(torch.float32).max


def find_bounds(type: TensorType) -> tuple[float, float]:
    """Finds the lowest and the highest value of a type: its range or its classes, or else what float32 holds.

    Examples:
        >>> find_bounds(TensorType((), classes=10)), find_bounds(TensorType((2,), range=(-1.0, 1.0)))
        ((0.0, 9.0), (-1.0, 1.0))
    """
    if type.classes is not None:
        return 0.0, type.classes - 1.0
    return type.range or (-_LARGEST, _LARGEST)
