"""Images on their way into a network: checked, mapped from the data's range, given 1 or 3 channels, resized.

All of it is differentiable, and maps each image by itself. Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.types import TensorType

__all__ = ["check_image_type", "check_images", "resize", "map_range", "convert_channels"]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey


def check_image_type(owner: str, x: TensorType, channels: tuple[int, ...] = (1, 3)) -> tuple[float, float]:
    """The range of image data.

    Raises:
        ValueError: If `x` is no `c h w` with that many channels, is codes, or has no range.
    """
    if len(x.shape) != 3 or x.classes is not None or x.shape[0] not in channels:
        counts = " or ".join(map(str, channels))
        raise ValueError(f"{owner} expects images of {counts} channels, (c, h, w), got {x}")
    if x.range is None:
        raise ValueError(f"{owner} expects images with a range, such as (-1, 1), got {x}")
    return x.range


def check_images(owner: str, x: Tensor, channels: int) -> None:
    """Checks images as they come.

    Raises:
        ValueError: If `x` is not `b c h w` of that many channels.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{owner} expects x of shape (b, {channels}, h, w), got {tuple(x.shape)}")


def map_range(x: Tensor, source: tuple[float, float], target: tuple[float, float]) -> Tensor:
    """Maps the interval `source` onto `target`, affinely; nothing is clipped."""
    if source == target:
        return x
    scale = (target[1] - target[0]) / (source[1] - source[0])
    return (x - source[0]) * scale + target[0]


def convert_channels(x: Tensor, channels: int) -> Tensor:
    """`b c h w` of 1 or 3 channels with 1 (luma, BT.601) or 3 (grey repeated)."""
    if x.shape[1] == channels:
        return x
    if channels == 3:
        return x.expand(-1, 3, -1, -1)
    luma = torch.tensor(_LUMA, dtype=x.dtype, device=x.device)
    return (x * luma[:, None, None]).sum(1, keepdim=True)


def resize(x: Tensor, size: int, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """`b c size size`, whatever the aspect, between pixel centres; antialiased where it shrinks."""
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode=mode, align_corners=False, antialias=True)
