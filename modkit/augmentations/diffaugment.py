r"""DiffAugment: colour, translation and cutout, of real and generated images alike.

    color        x + b,   then contrast of channels s (x - mean_c) + mean_c,   then of all c (x - mean) + mean
                 b ~ U(-1/2, 1/2) half ranges,   s ~ U(0, 2),   c ~ U(1/2, 3/2)
    translation  by up to 1/8 of the size; what comes in is the middle of the range
    cutout       a rectangle of 1/2 of the size becomes the middle of the range; its centre lies anywhere in the image

Shape letters: b batch, c channels, h w spatial.

References:
    Differentiable Augmentation for Data-Efficient GAN Training (Zhao et al., 2020), section 3.2,
    https://arxiv.org/abs/2006.10738
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import Share, TensorType, checked

__all__ = ["DiffAugment"]

_SHIFT, _CUT = 1 / 8, 1 / 2  # of the size


@checked
class DiffAugment:
    """Changes colours, translates and cuts out, with draws of each image's own.

    Args:
        x: Type of the images, `(c, h, w)`, continuous. Without a range, the middle is 0 and half a range 1.
        policy: What is done, in this order.
        strength: Share of each change, in [0, 1]; with 0 images stay as they are.

    Raises:
        ValueError: If x is not an image, `policy` has an unknown entry, or `strength` is outside [0, 1].

    Examples:
        >>> augment = DiffAugment(TensorType((3, 16, 16), range=(-1.0, 1.0)), policy=["translation"])
        >>> augment(torch.zeros(2, 3, 16, 16), Rng(0)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        x: TensorType,
        *,
        policy: list[Literal["color", "translation", "cutout"]] = ["color", "translation", "cutout"],  # noqa: B006
        strength: Share = 1.0,
    ) -> None:
        if len(x.shape) != 3 or x.classes is not None:
            raise ValueError(f"DiffAugment expects continuous images (c, h, w), got {x}")
        if unknown := [name for name in policy if name not in _CHANGES]:
            raise ValueError(f"DiffAugment expects a policy of {list(_CHANGES)}, got {unknown}")
        low, high = x.range or (-1.0, 1.0)
        self.middle, self.unit = (high + low) / 2, (high - low) / 2
        self.policy, self.strength = list(policy), strength

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        """Augments images, `b c h w`."""
        if not self.strength:
            return x
        y = (widen(x) - self.middle) / self.unit
        for name in self.policy:
            y = _CHANGES[name](y, rng.at(name), self.strength)
        return (y * self.unit + self.middle).to(x.dtype)


def _change_color(x: Tensor, rng: Rng, strength: float) -> Tensor:
    """Changes brightness, then saturation, then contrast."""
    brightness, saturation, contrast = (_draw(name, x, rng) * strength for name in ("brightness", "s", "contrast"))
    x = x + brightness / 2
    grey = x.mean(1, keepdim=True)
    x = grey + (1 + saturation) * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (1 + contrast / 2) * (x - mean)


def _translate(x: Tensor, rng: Rng, strength: float) -> Tensor:
    for axis, size in ((2, x.shape[2]), (3, x.shape[3])):
        limit = round(size * _SHIFT * strength)
        shift = rng.integers(f"{axis}", x.new_empty(len(x), 1), -limit, limit + 1)
        index = torch.arange(size, device=x.device) - shift
        inside = _lay(((index >= 0) & (index < size)).to(x.dtype), axis)
        x = inside * x.gather(axis, _lay(index.clamp(0, size - 1), axis).expand_as(x))
    return x


def _cut_out(x: Tensor, rng: Rng, strength: float) -> Tensor:
    cut = x.new_ones(len(x), 1, 1, 1)
    for axis, size in ((2, x.shape[2]), (3, x.shape[3])):
        length = round(size * _CUT * strength)
        centre = rng.integers(f"{axis}", x.new_empty(len(x), 1), 0, size + 1 - length % 2)
        index = torch.arange(size, device=x.device) - centre + length // 2
        cut = cut * _lay(((index >= 0) & (index < length)).to(x.dtype), axis)
    return x * (1 - cut)


_CHANGES = {"color": _change_color, "translation": _translate, "cutout": _cut_out}


def _draw(name: str, x: Tensor, rng: Rng) -> Tensor:
    """Draws a number from [-1, 1) for each image, `b 1 1 1`."""
    return 2 * rng.uniform(name, x.new_empty(len(x), 1, 1, 1)) - 1


def _lay(values: Tensor, axis: int) -> Tensor:
    """Lays values `b n` along an axis of images: `b 1 n 1` or `b 1 1 n`."""
    return values[:, None, :, None] if axis == 2 else values[:, None, None]
