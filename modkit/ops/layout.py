"""Layout: how the values of an op's result lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["choose_format"]


def choose_format(x: Tensor) -> torch.memory_format:
    """Chooses the memory format of a result: channels last where `x`, `b c h w`, has them so, else contiguous.

    Examples:
        >>> choose_format(torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last))
        torch.channels_last
    """
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
