"""The channels of what a bijection maps: the values of a vector, or the first axis of a map."""

from __future__ import annotations

from modkit.types import TensorType

__all__ = ["count_channels"]


def count_channels(owner: str, x: TensorType, least: int = 1) -> int:
    """Counts the channels of a continuous vector or map.

    Raises:
        ValueError: If x holds codes or is a scalar, or has fewer than `least` channels. The message names `owner`.

    Examples:
        >>> count_channels("Actnorm", TensorType((3, 8, 8)))
        3
    """
    if x.classes is not None or not 1 <= len(x.shape) <= 4:
        raise ValueError(f"{owner} expects continuous x (d,), (c, t), (c, h, w) or (c, t, h, w), got {x}")
    if x.shape[0] < least:
        blocks = len(x.shape) > 1 and not any(size % 2 for size in x.shape[1:])
        fits = "put it into a `squeeze`" if blocks else "`actnorm` and `autoregressive` take any number of channels"
        raise ValueError(f"{owner} expects x with at least {least} channels, got {x}: {fits}")
    return x.shape[0]
