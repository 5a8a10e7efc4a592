"""A linear map of the features at every position: a 1x1 convolution, or a linear layer for vectors.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions.
"""

from __future__ import annotations

from collections.abc import Sequence

from einops import rearrange
from torch import Tensor, nn

from modkit.nn.blocks import conv
from modkit.types import Event, TensorType

__all__ = ["check_features", "check_order", "pointwise", "to_tokens"]


def check_features(owner: str, h: Event) -> TensorType:
    """Checks that features are one continuous vector or map and returns their type.

    Raises:
        ValueError: If `h` is a hierarchy, codes or a scalar, or has more than three spatial sizes. The message names
            `owner`.
    """
    if isinstance(h, tuple):
        levels = ", ".join(map(str, h))
        raise ValueError(f"{owner} expects features of one level, got a hierarchy of {len(h)}: {levels}")
    if h.classes is not None or not 1 <= len(h.shape) <= 4:
        raise ValueError(f"{owner} expects continuous features (d,), (c, t), (c, h, w) or (c, t, h, w), got {h}")
    return h


def check_order(owner: str, levels: Sequence[TensorType]) -> None:
    """Checks that the levels of a hierarchy have the same number of spatial sizes, none smaller than the one before.

    Raises:
        ValueError: If they do not. The message names `owner`.
    """
    for upper, lower in zip(levels, levels[1:]):
        if len(upper.shape) != len(lower.shape) or any(n > m for n, m in zip(upper.shape[1:], lower.shape[1:])):
            raise ValueError(f"{owner} expects maps of one rank, coarsest first, got {', '.join(map(str, levels))}")


def pointwise(h: TensorType, channels: int) -> nn.Module:
    """Maps `b c h w` to `b channels h w`, and `b c` to `b channels`."""
    width, *size = h.shape
    return conv(len(size), width, channels, kernel=1) if size else nn.Linear(width, channels)


def to_tokens(z: Tensor) -> Tensor:
    """Flattens positions, `b c h w` to `b n c`; a vector `b c` becomes one position.

    Examples:
        >>> import torch
        >>> to_tokens(torch.zeros(2, 8, 4, 4)).shape, to_tokens(torch.zeros(2, 8)).shape
        (torch.Size([2, 16, 8]), torch.Size([2, 1, 8]))
    """
    return rearrange(z, "b c ... -> b (...) c")
