"""Affine maps of pictures: homogeneous matrices, `b 3 3`, for `warp`.

A matrix maps positions in the result to positions in the picture, so it holds the inverse of what is done to pictures:
in a product, what is done first stands first. Positions are (right, down), from the centre.

Shape letters: b batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["make_matrix", "make_shift", "make_turn"]


def make_matrix(rows: list[list[Tensor | int]], like: Tensor) -> Tensor:
    """Makes a matrix for each row of `like`, `b ...`, of its dtype, from entries `b` and numbers.

    Examples:
        >>> make_matrix([[torch.tensor([2.0]), 0], [0, 1]], torch.zeros(1))
        tensor([[[2., 0.],
                 [0., 1.]]])
    """
    one = like.new_ones(len(like))
    return torch.stack([torch.stack([value * one for value in row], 1) for row in rows], 1)


def make_shift(right: Tensor, down: Tensor, like: Tensor) -> Tensor:
    """Makes the maps of pictures that are moved by pixels, `b` each.

    Examples:
        >>> make_shift(torch.tensor([1.0]), torch.tensor([2.0]), torch.zeros(1))[0, :, 2]
        tensor([-1., -2.,  1.])
    """
    return make_matrix([[1, 0, -right], [0, 1, -down], [0, 0, 1]], like)


def make_turn(cos: Tensor, sin: Tensor, like: Tensor) -> Tensor:
    """Makes the maps of pictures that are turned anticlockwise by an angle, of which cosine and sine are given, `b`.

    Examples:
        >>> make_turn(torch.tensor([0.0]), torch.tensor([1.0]), torch.zeros(1))[0, 0]
        tensor([ 0., -1.,  0.])
    """
    return make_matrix([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], like)
