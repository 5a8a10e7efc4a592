r"""Geometric changes of pictures, each described by parameters that are zero where nothing is changed.

    change       made with   parameters                      map M of the result's positions to the picture's
    x-flip       1           a_0 ~ U{0, 1}                   diag(1 - 2 a_0, 1)
    y-flip       p           a_1 ~ U{0, 1}                   diag(1, 1 - 2 a_1)
    scaling      p           a_2 ~ N(0, 1)                   diag(1/s, 1/s),   s = 2^(.2 a_2)
    rotation     p           cos a_3 - 1, sin a_3            R(a_3),   a_3 ~ U(-pi, pi)
    anisotropy   p           |a_5| cos a_4, |a_5| sin a_4    R(a_4) diag(1/s, s) R(-a_4),   s = 2^(.2 |a_5|)
                                                             a_4 ~ U(-pi, pi),   a_5 ~ N(0, 1)
    translation  p           a_6, a_7 ~ N(0, 1)              moved by (a_6 w / 8, a_7 h / 8) pixels

M of several changes is the product of theirs, in this order: the first is done first. The paper's a_5 has a sign, by
which its parameters are those of two changes: (-a_5, a_4) and (a_5, a_4 + pi). Without it the changes have the same
distribution, and M is a function of the parameters.

Shape letters: b batch, g changes, d parameters.

References:
    Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix F.2,
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from modkit.augmentations.affine import make_matrix, make_shift, make_turn
from modkit.rng import Rng
from modkit.types import Share, checked

__all__ = ["Change", "Geometry"]

Change: TypeAlias = Literal["x-flip", "y-flip", "scaling", "rotation", "anisotropy", "translation"]

_OCTAVES, _SHIFT = 0.2, 1 / 8  # of a unit of the parameters: log2 of the scale, share of the size


@checked
class Geometry:
    """Draws the parameters of changes, and makes maps of them.

    Args:
        changes: The changes, in any order.
        p: Probability of each change but `x-flip`, in [0, 1].

    Raises:
        ValueError: If a change is unknown or named twice, there is none, or `p` is outside [0, 1].

    Examples:
        >>> geometry = Geometry(["scaling", "x-flip"], p=0.5)
        >>> geometry.num, geometry.draw(torch.empty(1), Rng(0)).shape
        (2, torch.Size([1, 2]))
        >>> geometry.make_maps(torch.tensor([[1.0, 0.0]]), (8, 8))[0].diag()
        tensor([-1.,  1.,  1.])
    """

    def __init__(self, changes: Sequence[Change], *, p: Share) -> None:
        if not changes or len(set(changes)) < len(changes) or not set(changes) <= set(_CHANGES):
            raise ValueError(f"Geometry expects different changes of {list(_CHANGES)}, got {list(changes)}")
        self.changes = tuple(name for name in _CHANGES if name in changes)
        self.p = p

    @property
    def num(self) -> int:
        """Number of parameters d."""
        return sum(_CHANGES[name].num for name in self.changes)

    def draw(self, like: Tensor, rng: Rng) -> Tensor:
        """Draws parameters, `b d`, for the rows of `like`, `b ...`; which other changes there are changes none."""
        shape = (len(like), len(_CHANGES), 2)
        gates, uniform = rng.uniform("uniform", like.new_empty(shape)).unbind(2)
        normal = rng.normal("normal", like.new_empty(shape))
        drawn = []
        for index, (name, change) in enumerate(_CHANGES.items()):
            made = gates[:, index, None] < (1.0 if name == "x-flip" else self.p)
            if name in self.changes:
                drawn.append(torch.where(made, change.describe(uniform[:, index], normal[:, index]), 0.0))
        return torch.cat(drawn, 1)

    def make_maps(self, parameters: Tensor, size: tuple[int, int]) -> Tensor:
        """Makes the maps from positions in the result to those in pictures of height and width `size`, `b 3 3`.

        Args:
            parameters: The parameters, `b d`; of zeros, the map is the identity, to the bit.
            size: Height and width.
        """
        each = torch.split(parameters, [_CHANGES[name].num for name in self.changes], 1)
        return reduce(
            torch.matmul, (_CHANGES[name].make_map(own, size) for name, own in zip(self.changes, each, strict=True))
        )


class _Change(NamedTuple):
    """One change: its number of parameters, how draws, `b` and `b 2`, describe it, and its map, `b 3 3`."""

    num: int
    describe: Callable[[Tensor, Tensor], Tensor]
    make_map: Callable[[Tensor, tuple[int, int]], Tensor]


def _describe_flip(uniform: Tensor, normal: Tensor) -> Tensor:
    return (uniform >= 0.5).to(uniform)[:, None]


def _describe_rotation(uniform: Tensor, normal: Tensor) -> Tensor:
    angle = math.pi * (2 * uniform - 1)
    return torch.stack([angle.cos() - 1, angle.sin()], 1)


def _describe_anisotropy(uniform: Tensor, normal: Tensor) -> Tensor:
    angle, size = math.pi * (2 * uniform - 1), normal[:, 0].abs()
    return torch.stack([size * angle.cos(), size * angle.sin()], 1)


def _make_x_flip(flip: Tensor, size: tuple[int, int]) -> Tensor:
    return make_matrix([[1 - 2 * flip[:, 0], 0, 0], [0, 1, 0], [0, 0, 1]], flip)


def _make_y_flip(flip: Tensor, size: tuple[int, int]) -> Tensor:
    return make_matrix([[1, 0, 0], [0, 1 - 2 * flip[:, 0], 0], [0, 0, 1]], flip)


def _make_scaling(octaves: Tensor, size: tuple[int, int]) -> Tensor:
    part = torch.exp2(-_OCTAVES * octaves[:, 0])
    return make_matrix([[part, 0, 0], [0, part, 0], [0, 0, 1]], octaves)


def _make_rotation(turn: Tensor, size: tuple[int, int]) -> Tensor:
    return make_turn(turn[:, 0] + 1, turn[:, 1], turn)


def _make_stretch(axis: Tensor, size: tuple[int, int]) -> Tensor:
    part, angle = torch.exp2(-_OCTAVES * axis.norm(dim=1)), torch.atan2(axis[:, 1], axis[:, 0])
    cos, sin = angle.cos(), angle.sin()
    squeeze = make_matrix([[part, 0, 0], [0, 1 / part, 0], [0, 0, 1]], axis)
    return make_turn(cos, sin, axis) @ squeeze @ make_turn(cos, -sin, axis)


def _make_translation(shift: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = size
    return make_shift(_SHIFT * width * shift[:, 0], _SHIFT * height * shift[:, 1], shift)


_CHANGES = {
    "x-flip": _Change(1, _describe_flip, _make_x_flip),
    "y-flip": _Change(1, _describe_flip, _make_y_flip),
    "scaling": _Change(1, lambda uniform, normal: normal[:, :1], _make_scaling),
    "rotation": _Change(2, _describe_rotation, _make_rotation),
    "anisotropy": _Change(2, _describe_anisotropy, _make_stretch),
    "translation": _Change(2, lambda uniform, normal: normal, _make_translation),
}
