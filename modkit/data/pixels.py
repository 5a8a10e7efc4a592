"""Pixels: bytes while they are stored, read and sent between processes, values in [-1, 1] on the device.

    x = pixels * (2 / 255) - 1        pixels 0..255

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

from modkit.types import Batch

__all__ = ["scale_pixels"]


def scale_pixels(batch: Batch) -> Batch:
    """Scales bytes, `b ...`, to values in [-1, 1], float32; the `finish` of data sets that read bytes.

    It multiplies, since CUDA divides by a number by multiplying with its reciprocal: both give the same bits.

    Examples:
        >>> import torch
        >>> scale_pixels(Batch(torch.tensor([[0, 51, 255]], dtype=torch.uint8), {})).tensor
        tensor([[-1.0000, -0.6000,  1.0000]])
    """
    return Batch(batch.tensor.float().mul_(2 / 255).sub_(1), batch.fields, batch.cond)
