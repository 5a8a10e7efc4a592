r"""Sprites: pictures of one shape each, made of five known factors, as dSprites has them, and drawn when they are read.

    factor        values                         dSprites' name
    shape         square, ellipse, heart         shape
    scale         .5, .6, …, 1                   scale
    orientation   40 from 0 to 2 pi, both        orientation
    pos_x, pos_y  32 from .25 to .75 each        posX, posY

    index = (((shape 6 + scale) 40 + orientation) 32 + pos_x) 32 + pos_y        737,280 pictures
    grey  = clamp(1/2 - d, 0, 1),   d the signed distance of a pixel's centre to the outline, in pixels

The sprite lies within a circle whose radius is a quarter of the side times its scale, so it is never cut. The
heart is a square that stands on a corner, with a disc on each of its upper sides. Edges are grey, since neighbouring
places and scales lie less than a pixel apart at small sizes: with two levels, their pictures would be the same. As in
dSprites, the first and the last orientation are the same; all other pictures differ.

Shape letters: b batch, h w spatial.

References:
    dSprites (Matthey et al., 2017), https://github.com/google-deepmind/dsprites-dataset
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Annotated

import torch
from torch import Tensor

from modkit.data.loader import draw_permutation
from modkit.data.moments import measure_std
from modkit.data.pixels import scale_pixels
from modkit.data.splits import check_split, hash_contents
from modkit.rng import Rng
from modkit.types import Batch, Range, TensorType, checked

__all__ = ["Sprites"]

_SIZES = {"shape": 3, "scale": 6, "orientation": 40, "pos_x": 32, "pos_y": 32}
_TOTAL = math.prod(_SIZES.values())
_LARGEST = 256
_DISC = 1 / (
    math.sqrt(2) + (2 - math.sqrt(2)) / (3 - math.sqrt(2))
)  # radius of the heart's discs, half the square's side
_SHIFT = _DISC * (math.sqrt(2) - 1) / (3 - math.sqrt(2))  # from the square's middle to that of the circle around it


@checked
class Sprites:
    """Pictures of a square, an ellipse or a heart, `b 1 size size` in [-1, 1], with its factors as fields, `b` each.

    Picture i is a function of only i, and no file is read. The test split is a fixed random choice of pictures, which
    the training split has not. Pixels are bytes until they are used (`finish`).

    Args:
        size: Height and width.
        num_test: Number of test pictures; all others are for training.

    Raises:
        ValueError: If `size` is outside [8, 256], or a split would be empty.

    Examples:
        >>> from modkit.data import read_samples
        >>> data = Sprites(size=16)
        >>> batch = read_samples(data, "test", [0, 1], Rng(0))
        >>> batch.tensor.shape, list(batch.fields)
        (torch.Size([2, 1, 16, 16]), ['shape', 'scale', 'orientation', 'pos_x', 'pos_y'])
    """

    levels: int | None = 256
    factors = tuple(_SIZES)
    finish = staticmethod(scale_pixels)

    def __init__(
        self,
        *,
        size: Annotated[int, Range(8, _LARGEST)] = 32,
        num_test: Annotated[int, Range(1, below=_TOTAL)] = 10_000,
    ) -> None:
        self.size = size
        self.fields = {name: TensorType((), classes=num) for name, num in _SIZES.items()}
        self.splits = {"train": _TOTAL - num_test, "test": num_test}
        self.key = hash_contents("sprites", size, num_test)
        self.x = TensorType((1, size, size), range=(-1.0, 1.0))
        self.x = TensorType((1, size, size), range=(-1.0, 1.0), std=measure_std(self))

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Draws the samples at `indices` as bytes, `b 1 size size`; `rng` is not used.

        Raises:
            ValueError: If there is no such split.
        """
        fields = self.read_fields(split, indices)
        grey = _draw(*fields.values(), size=self.size)
        return Batch((grey * 255).round().to(torch.uint8)[:, None], fields)

    def read_fields(self, split: str, indices: Sequence[int]) -> dict[str, Tensor]:
        """Computes the factors of the samples at `indices`, `b` each.

        Raises:
            ValueError: If there is no such split.
        """
        check_split(self, split)
        places = torch.as_tensor(indices, dtype=torch.long)
        if split == "train":
            places = places + self.splits["test"]
        values = torch.unravel_index(_order_pictures()[places], tuple(_SIZES.values()))
        return dict(zip(_SIZES, values, strict=True))


@cache
def _order_pictures() -> Tensor:
    """The order of all pictures, of which the first are for testing."""
    return draw_permutation(Rng(0, "sprites"), _TOTAL)


def _draw(shape: Tensor, scale: Tensor, orientation: Tensor, x: Tensor, y: Tensor, *, size: int) -> Tensor:
    """Draws pictures, `b size size` in [0, 1], float64, from the values of their factors, `b` each.

    Only a window around each sprite is computed, half as wide as the picture and two pixels more on each side.
    """
    radius = (0.5 + 0.1 * scale.double()) / 4  # of the circle around the sprite, in sides of the picture
    angle = orientation.double() * (2 * math.pi / (_SIZES["orientation"] - 1))
    columns, across = _place_windows(0.25 + 0.5 * x.double() / (_SIZES["pos_x"] - 1), size)
    rows, down = _place_windows(0.25 + 0.5 * y.double() / (_SIZES["pos_y"] - 1), size)
    across, up = (across / radius[:, None])[:, None, :], (-down / radius[:, None])[:, :, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    u, v = cos * across + sin * up, cos * up - sin * across
    distance = torch.empty_like(u)
    for index, measure in enumerate((_measure_square, _measure_ellipse, _measure_heart)):
        of = shape == index
        distance[of] = measure(u[of], v[of])
    pictures = torch.zeros(len(shape), size, size, dtype=torch.float64)
    places = torch.arange(len(shape))[:, None, None], rows[:, :, None], columns[:, None, :]
    pictures[places] = (0.5 - distance * (radius * size)[:, None, None]).clamp(0, 1)
    return pictures


def _place_windows(middle: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Pixels of an axis around `middle`, `b`: their numbers, `b w`, and the places of their centres relative to it."""
    width = min(size, size // 2 + 4)  # the largest sprite, and two pixels on each side
    first = (middle * size - width / 2).round().long().clamp(0, size - width)
    pixels = first[:, None] + torch.arange(width)
    return pixels, (pixels.double() + 0.5) / size - middle[:, None]


def _measure_square(u: Tensor, v: Tensor, half: float = math.sqrt(0.5)) -> Tensor:
    """The signed distance to a square around the origin."""
    u, v = u.abs() - half, v.abs() - half
    return _measure_length(u.clamp_min(0), v.clamp_min(0)) + torch.maximum(u, v).clamp_max(0)


def _measure_length(u: Tensor, v: Tensor) -> Tensor:
    return (u * u + v * v).sqrt()  # three times as fast as hypot


def _measure_ellipse(u: Tensor, v: Tensor) -> Tensor:
    """The signed distance to an ellipse with half axes 1 and 1/2, to first order in it."""
    level, slope = _measure_length(u, 2 * v), _measure_length(u, 4 * v)
    return level * (level - 1) / slope.clamp_min(1e-9)


def _measure_heart(u: Tensor, v: Tensor) -> Tensor:
    """The signed distance to the heart from outside; inside it is at most 0."""
    left, right = ((v - u) * math.sqrt(0.5) + _SHIFT, (v + u) * math.sqrt(0.5) + _SHIFT)
    discs = torch.minimum(_measure_length(left - _DISC, right), _measure_length(left, right - _DISC)) - _DISC
    return torch.minimum(discs, _measure_square(left, right, _DISC))
