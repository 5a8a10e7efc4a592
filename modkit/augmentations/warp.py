r"""Images warped by affine maps, differentiable as often as one likes.

    y(o) = x(M o),   o the position of a pixel, in pixels from the centre: (right, down)

Values between pixels are interpolated linearly, and those outside are mirrored at the border. The kernel of torch's
`grid_sample` has no second derivative, which penalties on a critic's slope need; here x is read by `gather`, which has.

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from modkit.precision import widen

__all__ = ["warp"]


def warp(x: Tensor, matrix: Tensor) -> Tensor:
    """Warps images.

    Args:
        x: Images, `b c h w`; gradients flow to them.
        matrix: The maps M from positions in the result to positions in x, `b 3 3`, homogeneous.

    Returns:
        The warped images, shape and dtype of `x`; an image whose map is the identity is as it was, to the bit.

    Examples:
        >>> flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))[None]
        >>> warp(torch.tensor([[[[1.0, 2.0, 3.0]]]]), flip)
        tensor([[[[3., 2., 1.]]]])
    """
    h, w = x.shape[2:]
    matrix = widen(matrix)
    across, down = (torch.arange(size, dtype=matrix.dtype, device=x.device) - (size - 1) / 2 for size in (w, h))
    right = _map(matrix[:, 0], across, down) + (w - 1) / 2
    below = _map(matrix[:, 1], across, down) + (h - 1) / 2
    flat = widen(x).flatten(2)
    warped = torch.zeros_like(flat)
    for row, share_row in _split(below):
        for column, share_column in _split(right):
            index = (_mirror(row, h) * w + _mirror(column, w)).flatten(1)
            share = (share_row * share_column).flatten(1).to(flat.dtype)
            warped = warped + share[:, None] * flat.gather(2, index[:, None].expand(-1, x.shape[1], -1))
    moved = (matrix != torch.eye(3, dtype=matrix.dtype, device=x.device)).flatten(1).any(1)
    return torch.where(moved[:, None, None, None], rearrange(warped, "b c (h w) -> b c h w", h=h).to(x.dtype), x)


def _map(row: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Computes one coordinate of all positions, `b h w`, by a row of the matrix, `b 3`."""
    return row[:, 0, None, None] * across + row[:, 1, None, None] * down[:, None] + row[:, 2, None, None]


def _split(position: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Splits positions between the two pixels beside them: the index of each, and its share."""
    low = position.floor()
    share = position - low
    return (low.long(), 1 - share), (low.long() + 1, share)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Mirrors indices at the borders, such that the outermost pixel is repeated: ... 1 0 | 0 1 2 | 2 1 ..."""
    index = index % (2 * size)
    return torch.minimum(index, 2 * size - 1 - index)
