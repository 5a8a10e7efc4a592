"""A linear map of the features at every position: a 1x1 convolution, or a linear layer for vectors.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes), n positions.
"""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from modkit.nn.blocks import conv
from modkit.types import Event, TensorType

__all__ = ["check_features", "pointwise", "to_tokens"]


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
    tokens: Tensor = rearrange(z, "b c ... -> b (...) c")
    return tokens
