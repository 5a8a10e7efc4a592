r"""Noise: corruptions that change each value or position of a sample independently, for models that remove it.

    noise         noisy = x + std eps,   eps ~ N(0, I)
    salt-pepper   noisy = low, high or x         with probabilities share / 2, share / 2 and 1 - share at each position
    drop          dropped = value or x           with probabilities share and 1 - share at each position or patch

A level (`std`, `share`) is one number, or a range `[low, high]` from which it is drawn uniformly for each sample. All
channels of a position are changed together.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising Criterion
    (Vincent et al., 2010), section 3.3, https://www.jmlr.org/papers/v11/vincent10a.html
"""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias

import torch
from torch import Tensor

from modkit.data.splits import hash_contents
from modkit.nn.blocks import crop, get_map_size
from modkit.rng import Rng
from modkit.types import PositiveInt, TensorType, checked

__all__ = ["Drop", "Noise", "SaltPepper"]

Field: TypeAlias = Annotated[str, "Name of the field."]


class Noise:
    """Adds Gaussian noise to each sample, as the field `noisy`, which has no range.

    Args:
        x: Type of the samples, continuous.
        std: Standard deviation of the noise in units of x, or a range to draw it from.

    Raises:
        ValueError: If `x` holds codes, or `std` is negative or no range.

    Examples:
        >>> noise = Noise(TensorType((1, 4, 4), range=(-1, 1)), std=[0.1, 0.5])
        >>> noise(torch.zeros(2, 1, 4, 4), Rng(0))["noisy"].shape
        torch.Size([2, 1, 4, 4])
    """

    def __init__(self, x: TensorType, *, std: float | list[float] = 0.5, field: Field = "noisy") -> None:
        if x.classes is not None:
            raise ValueError(f"Noise expects continuous values, got {x}")
        self.std, self.field = _read_range("Noise", "std", std, math.inf), field
        self.fields = {field: TensorType(x.shape)}

    @property
    def key(self) -> str:
        """Hash of the settings."""
        return hash_contents("noise", *self.std, self.field)

    def __call__(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Computes the field, `b ...`."""
        return {self.field: x + _draw_level(self.std, x, rng) * rng.normal("eps", x)}


class SaltPepper:
    """Sets a share of the positions to the lowest or the highest value, equally often, as the field `noisy`.

    Args:
        x: Type of the samples: continuous maps with a range.
        share: Expected share of the positions that are changed, or a range to draw it from.

    Raises:
        ValueError: If `x` is not a map or has no range, or `share` is outside [0, 1] or no range.

    Examples:
        >>> impulses = SaltPepper(TensorType((1, 8, 8), range=(-1, 1)), share=1.0)
        >>> impulses(torch.zeros(1, 1, 8, 8), Rng(0))["noisy"].unique()
        tensor([-1.,  1.])
    """

    def __init__(self, x: TensorType, *, share: float | list[float] = 0.3, field: Field = "noisy") -> None:
        get_map_size("SaltPepper", x)
        if x.range is None:
            raise ValueError(f"SaltPepper expects x with a range, whose ends it sets values to, got {x}")
        self.share, self.field, self.range = _read_range("SaltPepper", "share", share, 1.0), field, x.range
        self.fields = {field: x}

    @property
    def key(self) -> str:
        """Hash of the settings."""
        return hash_contents("salt-pepper", *self.share, self.field)

    def __call__(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Computes the field, `b c h w`."""
        share, uniform = _draw_level(self.share, x, rng), rng.uniform("places", x[:, :1])
        low, high = self.range
        return {self.field: torch.where(uniform < share / 2, low, torch.where(uniform < share, high, x))}


@checked
class Drop:
    """Sets a share of the positions, or of square patches of them, to one value, as the field `dropped`.

    Args:
        x: Type of the samples: continuous maps.
        share: Expected share of the patches that are changed, or a range to draw it from.
        patch: Side of a patch in positions; patches form a grid, whose last ones may be smaller.
        value: The value, by default the middle of x's range, or 0.
        mask: Name of a second field, which is 1 where values were dropped and 0 elsewhere, `b 1 h w`; none by default.

    Raises:
        ValueError: If `x` is not a map, `share` is outside [0, 1] or no range, `patch` is below 1, or both fields have
            one name.

    Examples:
        >>> drop = Drop(TensorType((1, 4, 4), range=(0, 1)), share=1.0, patch=2, mask="mask")
        >>> drop(torch.zeros(1, 1, 4, 4), Rng(0))["dropped"].unique()
        tensor([0.5000])
    """

    def __init__(
        self,
        x: TensorType,
        *,
        share: float | list[float] = 0.5,
        patch: PositiveInt = 1,
        value: float | None = None,
        field: Field = "dropped",
        mask: str | None = None,
    ) -> None:
        self.size = get_map_size("Drop", x)
        self.share = _read_range("Drop", "share", share, 1.0)
        if mask == field:
            raise ValueError(f"Drop expects a mask of another name, got {mask!r} of {field!r}")
        self.value = (sum(x.range) / 2 if x.range else 0.0) if value is None else value
        self.patch, self.field, self.mask = patch, field, mask
        self.fields = {field: TensorType(x.shape, range=_widen_range(x, self.value))}
        if mask:
            self.fields[mask] = TensorType((1, *self.size), range=(0.0, 1.0))

    @property
    def key(self) -> str:
        """Hash of the settings."""
        return hash_contents("drop", *self.share, self.patch, self.value, self.field, self.mask or "")

    def __call__(self, x: Tensor, rng: Rng) -> dict[str, Tensor]:
        """Computes the field, `b c h w`, and the mask, `b 1 h w`, if there is one."""
        grid = x.new_empty(len(x), 1, *(-(-length // self.patch) for length in x.shape[2:]))
        dropped = rng.uniform("places", grid) < _draw_level(self.share, x, rng)
        for axis in range(2, x.ndim):
            dropped = dropped.repeat_interleave(self.patch, axis)
        dropped = crop(dropped, x.shape[2:])
        made = {self.field: torch.where(dropped, self.value, x)}
        return made | {self.mask: dropped.to(x.dtype)} if self.mask else made


def _read_range(owner: str, name: str, level: float | list[float], most: float) -> tuple[float, float]:
    """Reads a level, or the range of it, whose ends lie in [0, most]."""
    ends = tuple(level) if isinstance(level, list | tuple) else (level, level)
    if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= most:
        between = "of at least 0" if most == math.inf else f"in [0, {most:g}]"
        raise ValueError(f"{owner} expects {name} {between}, or a range [low, high] of it, got {level}")
    return float(ends[0]), float(ends[1])


def _draw_level(ends: tuple[float, float], x: Tensor, rng: Rng) -> Tensor:
    """Draws a level for each sample, `b 1 1 1`."""
    low, high = ends
    level = low + (high - low) * rng.uniform("level", x.new_empty(len(x)))
    return level.reshape(-1, *(1,) * (x.ndim - 1))


def _widen_range(x: TensorType, value: float) -> tuple[float, float] | None:
    return None if x.range is None else (min(x.range[0], value), max(x.range[1], value))
