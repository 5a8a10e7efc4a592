r"""R3GAN: a generator and a discriminator without normalisation, for relativistic losses under R1 and R2.

    block          y = x + W_3 a(W_2 a(W_1 x + b_1) + b_2),   a(x) = LReLU(x)       1x1, grouped 3x3, 1x1
    generator      (basis * W [z, e(cond)]) -> blocks -> (1x1 -> up -> blocks) x k -> 1x1 -> squash
    discriminator  [x, concat] -> 1x1 -> blocks -> (down -> 1x1 -> blocks) x k -> phi = sum over positions of basis * h
                   logits = w . phi + b + phi^T V e(cond) / sqrt(d)

`up` and `down` are filters [1, 3, 3, 1], bilinear interpolation and its transpose: the authors' code says [1, 2, 1] and
convolves this with [1, 1]. The middle of a block is wider than x by the factor `expansion`. Initially a block is the
identity: W_3 is zero, and W_1 and W_2 have He's variances times L^(-1/2), of standard deviations times L^(-1/4), where
L is the number of blocks of the network (Fixup: Zhang et al., 2019).

In the paper each group of the 3x3 convolution has 16 channels. On a CPU, the second derivatives of grouped convolutions
that penalties need are slow; there, one group with less expansion has as many parameters in less time. The paper's
generator does not squash its output.

Shape letters: b batch, c channels, d features, h w spatial (one, two or three sizes).

References:
    The GAN is dead; long live the GAN! (Huang et al., 2024), section 3 and appendix, https://arxiv.org/abs/2501.05441
    Fixup Initialization: Residual Learning Without Normalization (Zhang et al., 2019),
    https://arxiv.org/abs/1901.09321
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import Level, choose_levels, conv, crop
from modkit.nn.embeddings import Balance, CondEmbedding, MapJoin, check_context, check_noise, embed_beside
from modkit.nn.fir import FIRDownsample, FIRUpsample
from modkit.nn.heads import Heads
from modkit.nn.mlp import squash
from modkit.nn.projection import Projection
from modkit.types import Cond, CondType, Judgement, PositiveInt, TensorType, checked

__all__ = ["R3GANDiscriminator", "R3GANGenerator"]

Filter: TypeAlias = Annotated[
    list[float],
    "Filter of the resampling, whose sum is divided out. Runs made before it could be chosen had [1, 2, 1], which "
    "moves maps by half a fine position at each level.",
]

_SLOPE = 0.2
_GROUP = 16  # channels in a group, as in the paper


@checked
class R3GANGenerator(nn.Module):
    """Maps noise, concatenated with the embedded conditions, to signals, images or volumes.

    Args:
        z: Type of the noise, continuous.
        x: Type of the output: continuous maps of any size. If it has a range, a tanh maps the output to it.
        cond: Type of the conditions; tokens and maps are not supported.
        channels: Channels of the finest maps; each coarser level has twice as many, up to eight times as many.
        blocks: Residual blocks per level.
        expansion: How many times wider the middle of a block is.
        groups: Groups of the 3x3 convolutions; by default each group has 16 channels, or a few more.

    Raises:
        ValueError: If x is no map, z or x holds codes, `cond` has a context or a map, a number is below 1, `groups`
            does not divide the channels of each block's middle, or the sum of `resample_filter` is not above 0.

    Examples:
        >>> x = TensorType((3, 16, 12), range=(-1.0, 1.0))
        >>> generator = R3GANGenerator(TensorType((8,)), x, CondType(labels=10), channels=4)
        >>> generator(torch.zeros(2, 8), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2, 3, 16, 12])
    """

    def __init__(
        self,
        z: TensorType,
        x: TensorType,
        cond: CondType,
        *,
        channels: PositiveInt = 64,
        blocks: PositiveInt = 2,
        expansion: PositiveInt = 2,
        groups: PositiveInt | None = None,
        resample_filter: Filter = [1.0, 3.0, 3.0, 1.0],  # noqa: B006
        balance: Balance = True,
    ) -> None:
        super().__init__()
        levels = choose_levels("R3GANGenerator", x, channels)[::-1]
        make = _Blocks("R3GANGenerator", levels, blocks, expansion, groups)
        check_noise("R3GANGenerator", z, cond)
        self.x = x
        self.embedding = embed_beside(z, cond) if balance else CondEmbedding(cond, levels[0].channels)
        self.basis = nn.Parameter(torch.randn(levels[0].channels, *levels[0].size))
        width = z.numel + (self.embedding.width if self.embedding.embeds else 0)
        self.project = _init(nn.Linear(width, levels[0].channels, bias=False))
        self.levels = nn.ModuleList([make(levels[0])])
        for coarse, fine in pairwise(levels):
            self.levels.append(nn.Sequential(_Up(coarse, fine, resample_filter), *make(fine)))
        self.out = _init(conv(make.rank, channels, x.shape[0], kernel=1, bias=False))

    @property
    def units(self) -> list[nn.Module]:
        """The modules of all levels."""
        return [part for level in self.levels for part in level.children()]

    def forward(self, z: Tensor, cond: Cond) -> Tensor:
        """Generates x from `z`, `b d`."""
        joined = z.flatten(1)
        if self.embedding.embeds:
            joined = torch.cat([joined, self.embedding(cond, z)], dim=1)
        weights = self.project(joined)
        h = weights.reshape(*weights.shape, *(1,) * (self.basis.ndim - 1)) * self.basis
        for level in self.levels:
            h = level(h)
        return squash(self.out(h), self.x)


@checked
class R3GANDiscriminator(nn.Module):
    """Distinguishes real from fake signals, images or volumes, conditioned by projection.

    Args:
        x: Type of the data: continuous maps.
        cond: Type of the conditions. A map is joined to x as further channels; tokens are not supported.
        heads: Widths of the heads by name, linear layers of phi; by default none.
        channels: Channels of the finest maps; each coarser level has twice as many, up to eight times as many.
        blocks: Residual blocks per level.
        expansion: How many times wider the middle of a block is.
        groups: Groups of the 3x3 convolutions; by default each group has 16 channels, or a few more.

    Raises:
        ValueError: If x is no map, `cond` has a context, or a map that has another rank than x or is a finer map of
            codes, a number is below 1, `groups` does not divide the channels of each block's middle, or the sum of
            `resample_filter` is not above 0.

    Examples:
        >>> discriminator = R3GANDiscriminator(TensorType((3, 16, 16)), CondType(labels=10), channels=4)
        >>> discriminator(torch.zeros(2, 3, 16, 16), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2])
    """

    batch_independent = True

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        heads: Mapping[str, int] | None = None,
        *,
        channels: PositiveInt = 64,
        blocks: PositiveInt = 2,
        expansion: PositiveInt = 2,
        groups: PositiveInt | None = None,
        resample_filter: Filter = [1.0, 3.0, 3.0, 1.0],  # noqa: B006
    ) -> None:
        super().__init__()
        levels = choose_levels("R3GANDiscriminator", x, channels)
        make = _Blocks("R3GANDiscriminator", levels, blocks, expansion, groups)
        check_context("R3GANDiscriminator", cond)
        self.join = MapJoin(x, cond.concat, channels)
        self.conv_in = _init(conv(make.rank, self.join.channels, channels, kernel=1, bias=False))
        self.levels = nn.ModuleList([make(levels[0])])
        for fine, coarse in pairwise(levels):
            self.levels.append(nn.Sequential(_Down(fine, coarse, resample_filter), *make(coarse)))
        last = levels[-1]
        self.basis = nn.Parameter(torch.randn(last.channels, *last.size) / math.sqrt(math.prod(last.size)))
        self.out = _init(nn.Linear(last.channels, 1))
        self.projection = Projection(cond, last.channels)
        self.heads = Heads(heads, last.channels)

    @property
    def units(self) -> list[nn.Module]:
        """The modules of all levels."""
        return [part for level in self.levels for part in level.children()]

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`, `b`."""
        return self._judge(x, cond).logits

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        """Computes the logits of `x`, the maps of each level, and the heads."""
        return self._judge(x, cond)

    def _judge(self, x: Tensor, cond: Cond) -> Judgement:
        h, maps = self.conv_in(self.join(x, cond.concat)), []
        for level in self.levels:
            h = level(h)
            maps.append(h)
        features = (h * self.basis).flatten(2).sum(2)
        logits = self.out(features).squeeze(1) + self.projection(features, cond)
        return Judgement(logits, tuple(maps), self.heads(features))


class _Block(nn.Module):
    """A residual block; see the module's equation."""

    def __init__(self, rank: int, channels: int, middle: int, groups: int, scale: float) -> None:
        super().__init__()
        gain = math.sqrt(2 / (1 + _SLOPE**2)) * scale
        self.conv_1 = _init(conv(rank, channels, middle, kernel=1), gain)
        self.conv_2 = _init(conv(rank, middle, middle, groups=groups), gain)
        self.conv_3 = _init(conv(rank, middle, channels, kernel=1, bias=False), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to the same shape."""
        h = self.conv_2(F.leaky_relu(self.conv_1(x), _SLOPE))
        return x + self.conv_3(F.leaky_relu(h, _SLOPE))


class _Up(nn.Module):
    """Doubles the size, and maps to other channels first, where this costs less."""

    def __init__(self, coarse: Level, fine: Level, taps: Sequence[float]) -> None:
        super().__init__()
        self.size = fine.size
        self.conv = _make_change(len(fine.size), coarse.channels, fine.channels)
        self.upsample = FIRUpsample(len(fine.size), taps=taps)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to the size and channels of the finer level."""
        return crop(self.upsample(self.conv(x)), self.size)


class _Down(nn.Module):
    """Halves the size, and maps to other channels."""

    def __init__(self, fine: Level, coarse: Level, taps: Sequence[float]) -> None:
        super().__init__()
        self.halve = FIRDownsample(len(fine.size), taps=taps)
        self.conv = _make_change(len(fine.size), fine.channels, coarse.channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to the size and channels of the coarser level."""
        return self.conv(self.halve(x))


class _Blocks:
    """Makes the blocks of each level of a network."""

    def __init__(self, owner: str, levels: list[Level], blocks: int, expansion: int, groups: int | None) -> None:
        middles = [level.channels * expansion for level in levels]
        if groups and any(middle % groups for middle in middles):
            raise ValueError(f"{owner} expects groups that divide the channels {middles}, got {groups}")
        self.rank = len(levels[0].size)
        self._num, self._expansion, self._groups = blocks, expansion, groups
        self._scale = (blocks * len(levels)) ** -0.25

    def __call__(self, level: Level) -> nn.Sequential:
        middle = level.channels * self._expansion
        groups = self._groups or max(
            n for n in range(1, middle + 1) if not middle % n and (n == 1 or middle >= n * _GROUP)
        )
        blocks = (_Block(self.rank, level.channels, middle, groups, self._scale) for _ in range(self._num))
        return nn.Sequential(*blocks)


def _make_change(rank: int, channels: int, out_channels: int) -> nn.Module:
    """Makes the convolution between levels of these channels, if they differ."""
    if channels == out_channels:
        return nn.Identity()
    return _init(conv(rank, channels, out_channels, kernel=1, bias=False))


def _init(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draws weights of variance gain^2 / fan_in, and sets biases to zero."""
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=gain / math.sqrt(parameter[0].numel()))
        else:
            nn.init.zeros_(parameter)
    return layer
