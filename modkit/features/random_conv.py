"""A random convolutional network: features without training or labels, for quick comparisons.

    y_1 = silu(conv(x)), y_2 = silu(conv(y_1)) halved, y_3 = silu(conv(y_2)) halved
    vector = W flatten(mean of y_3 over 4x4 cells)

Weights are drawn from N(0, 2 / fan in) as a function of the seed, so they are the same in every process.

Shape letters: b batch, c channels, h w spatial, d features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.data.splits import hash_contents
from modkit.features.frozen import Frozen
from modkit.features.images import map_range
from modkit.rng import Rng
from modkit.types import Features, PositiveInt, TensorType, checked

__all__ = ["RandomConv", "make_levels", "run_levels"]

_CELLS = 4
_DIM = 128


@checked
class RandomConv(Frozen):
    """A fixed random network for images of any size and number of channels, which are not resized.

    Args:
        x: Type of the data: images. A range is mapped to [-1, 1].
        seed: Seed of the weights.
        dim: Number of features, a multiple of 4.

    Raises:
        ValueError: If `x` is not an image type, or `dim` is not a positive multiple of 4.

    Examples:
        >>> features = RandomConv(TensorType((3, 8, 8)), dim=16)
        >>> features(torch.zeros(2, 3, 8, 8)).vector.shape
        torch.Size([2, 16])
    """

    def __init__(self, x: TensorType, *, seed: int = 0, dim: PositiveInt = _DIM) -> None:
        super().__init__()
        if len(x.shape) != 3 or x.classes is not None:
            raise ValueError(f"RandomConv expects images, (c, h, w), got {x}")
        if dim % 4:
            raise ValueError(f"RandomConv expects dim to be a multiple of 4, got {dim}")
        self.label = f"random-conv:{seed}" + (f",dim={dim}" if dim != _DIM else "")
        self.channels, self._range = x.shape[0], x.range
        self._key = hash_contents("random-conv", 1, seed, dim, self.channels)
        self.levels = make_levels(self.channels, dim, bias=False)
        self.project = nn.Linear(dim * _CELLS**2, dim, bias=False)
        self._draw(Rng(seed, "random-conv"))
        self.freeze()

    def _extract(self, x: Tensor) -> Features:
        """Computes the features, with three maps."""
        y = x.to(self.project.weight.dtype)
        if self._range:
            y = map_range(y, self._range, (-1.0, 1.0))
        maps = run_levels(self.levels, y)
        return Features(self.project(F.adaptive_avg_pool2d(maps[-1], _CELLS).flatten(1)), maps)

    @torch.no_grad()
    def _draw(self, rng: Rng) -> None:
        for name, weight in self.named_parameters():
            weight.copy_(rng.normal(name, weight) * math.sqrt(2 / weight[0].numel()))


def make_levels(channels: int, dim: int, *, bias: bool) -> nn.ModuleList:
    """Makes three convolutions up to `dim` channels; the second and the third halve the size."""
    return nn.ModuleList(
        [
            nn.Conv2d(channels, dim // 4, 3, padding=1, bias=bias),
            nn.Conv2d(dim // 4, dim // 2, 3, stride=2, padding=1, bias=bias),
            nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1, bias=bias),
        ]
    )


def run_levels(levels: nn.ModuleList, x: Tensor) -> tuple[Tensor, ...]:
    """Computes the map of each level, with SiLU after each convolution."""
    maps: list[Tensor] = []
    for level in levels:
        maps.append(F.silu(level(maps[-1] if maps else x)))
    return tuple(maps)
