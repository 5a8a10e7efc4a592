"""Where float32 is the least that will do: sums over many elements, exponentials, distances."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["widen"]


def widen(value: Tensor) -> Tensor:
    """`value` in float32 at least: autocast's bfloat16 ends here, float64 stays."""
    return value.to(torch.promote_types(value.dtype, torch.float32))
