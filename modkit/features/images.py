"""Images as input of a network: checked, mapped from the data's range, converted to 1 or 3 channels, resized.

All functions are differentiable and map each image independently. Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.types import TensorType

__all__ = ["Images", "check_image_type", "check_images", "resize", "make_column", "map_range", "convert_channels"]

Images: TypeAlias = Annotated[TensorType, "Type of the data: grey or RGB images with a range."]

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, which Pillow uses for grey


def check_image_type(owner: str, x: TensorType, channels: tuple[int, ...] = (1, 3)) -> tuple[float, float]:
    """Checks that a type is of images, and returns its range.

    Raises:
        ValueError: If `x` is not `c h w` with one of these numbers of channels, is discrete, or has no range.

    Examples:
        >>> check_image_type("Owner", TensorType((3, 8, 8), range=(-1, 1)))
        (-1, 1)
    """
    if len(x.shape) != 3 or x.classes is not None or x.shape[0] not in channels:
        counts = " or ".join(map(str, channels))
        raise ValueError(f"{owner} expects images of {counts} channels, (c, h, w), got {x}")
    if x.range is None:
        raise ValueError(f"{owner} expects images with a range, such as (-1, 1), got {x}")
    return x.range


def check_images(owner: str, x: Tensor, channels: int) -> None:
    """Checks a batch of images.

    Raises:
        ValueError: If `x` is not `b c h w` with that many channels.
    """
    if x.ndim != 4 or x.shape[1] != channels:
        raise ValueError(f"{owner} expects x of shape (b, {channels}, h, w), got {tuple(x.shape)}")


def make_column(values: Sequence[float]) -> Tensor:
    """Makes a tensor of a value for each channel, `c 1 1`."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None]


def map_range(x: Tensor, source: tuple[float, float], target: tuple[float, float]) -> Tensor:
    """Maps the interval `source` to `target` by an affine function, without clipping.

    Examples:
        >>> map_range(torch.tensor([-1.0, 0.0, 2.0]), (-1.0, 1.0), (0.0, 255.0))
        tensor([  0.0000, 127.5000, 382.5000])
    """
    if source == target:
        return x
    scale = (target[1] - target[0]) / (source[1] - source[0])
    return (x - source[0]) * scale + target[0]


def convert_channels(x: Tensor, channels: int) -> Tensor:
    """Converts `b c h w` from 1 or 3 channels to 1 (luma, BT.601) or 3 (grey repeated).

    Examples:
        >>> convert_channels(torch.ones(1, 3, 2, 2), 1).shape
        torch.Size([1, 1, 2, 2])
    """
    if x.shape[1] == channels:
        return x
    if channels == 3:
        return x.expand(-1, 3, -1, -1)
    luma = torch.tensor(_LUMA, dtype=x.dtype, device=x.device)
    return (x * luma[:, None, None]).sum(1, keepdim=True)


def resize(x: Tensor, size: int, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """Resizes to `b c size size`, whatever the aspect, between pixel centres; antialiased if it shrinks.

    Examples:
        >>> resize(torch.ones(1, 1, 4, 6), 2).shape
        torch.Size([1, 1, 2, 2])
    """
    if x.shape[2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode=mode, align_corners=False, antialias=True)
