"""Layout: how the values of an op's result lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["choose_format"]


def choose_format(x: Tensor) -> torch.memory_format:
    """Chooses the memory format of a result: channels last where `x`, `b c ...`, has them so, else contiguous.

    Examples:
        >>> choose_format(torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last))
        torch.channels_last
    """
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    if last is None or x.is_contiguous() or not x.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last
