"""Resizing: bytes become square pictures of values in [-1, 1].

    x = resize(square(pixels) / 127.5 - 1)        pixels 0..255

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate, pad

__all__ = ["is_exact", "resize"]

_SMALL, _PADDED = 28, 32


def resize(pixels: Tensor, size: int) -> Tensor:
    """Cuts out the central square and resizes it bilinearly, antialiased if it shrinks.

    Pictures of 28×28, such as MNIST's, get two black pixels on each side for a size of 32.

    Args:
        pixels: Bytes, `b c h w`.
        size: Height and width.

    Returns:
        Values in [-1, 1], float32, `b c size size`.

    Examples:
        >>> import torch
        >>> resize(torch.tensor([[[[9, 0, 255, 9], [9, 255, 0, 9]]]], dtype=torch.uint8), 2)
        tensor([[[[-1.,  1.],
                  [ 1., -1.]]]])
    """
    height, width = pixels.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    x = pixels[:, :, top : top + side, left : left + side].float().div_(127.5).sub_(1)
    if side == size:
        return x
    if (side, size) == (_SMALL, _PADDED):
        return pad(x, [(_PADDED - _SMALL) // 2] * 4, value=-1.0)
    return interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=True)


def is_exact(side: int, size: int) -> bool:
    """Whether `resize` leaves squares of this side their values, so that 256 levels remain."""
    return size == side or (side, size) == (_SMALL, _PADDED)
