r"""The denoising diffusion GAN's discriminator: a time-conditional residual network that downsamples the input.

    h_0 = conv_1x1([x, concat])
    h_i = (skip(R h_{i-1}) + conv_1(R LReLU(conv_0(LReLU(h_{i-1})) + W a))) / sqrt(2)
    a = LReLU(MLP(sin, cos of time))
    phi = sum over positions of LReLU(conv([h, std])),   logits = w . phi + b + phi^T V e(cond) / sqrt(c)

R downsamples with the filter [1, 3, 3, 1], or is the identity. std is `MinibatchStd` in groups of 4, which compares the
samples of a batch, so losses depend on how a batch is split. Other conditions without positions are projected; the
paper has no such conditions.

Shape letters: b batch, c channels, d width of the time's embedding, h w spatial (one, two or three sizes).

References:
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), appendix C,
    https://arxiv.org/abs/2112.07804
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import broadcast, check_levels, conv, get_map_size, init_xavier
from modkit.nn.embeddings import MapJoin, check_context, require_times, sinusoidal_embedding
from modkit.nn.fir import FIRDownsample
from modkit.nn.heads import Heads
from modkit.nn.minibatch_std import MinibatchStd
from modkit.nn.projection import Projection
from modkit.types import Cond, CondType, Judgement, PositiveInt, TensorType, checked

__all__ = ["NCSNppDiscriminator"]

_SLOPE = 0.2


@checked
class NCSNppDiscriminator(nn.Module):
    """Distinguishes real from fake signals, images or volumes, given a time and a conditioning map if there are any.

    Args:
        x: Type of the data: continuous maps.
        cond: Type of the conditions. A map is joined to x as further channels, the time is added in each block, and the
            other conditions are projected; tokens are not supported.
        heads: Widths of the heads by name, linear layers of phi; by default none.
        channels: Channels of the first map, then those of each block.
        first: Whether the first block downsamples too, as is usual for large images; all later blocks do.
        embedding: Width of the time embedding.

    Raises:
        ValueError: If x is a vector or codes, `cond` has a context, its map has another rank than x or is a finer map
            of codes, or a number is below 1.

    Examples:
        >>> import torch
        >>> x = TensorType((3, 16, 16), range=(-1.0, 1.0))
        >>> discriminator = NCSNppDiscriminator(x, CondType(time=True, concat=x), channels=[8, 8, 16])
        >>> images = torch.zeros(2, 3, 16, 16)
        >>> discriminator(images, Cond(time=torch.tensor([0.0, 1.0]), concat=images)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        heads: Mapping[str, int] | None = None,
        *,
        channels: list[PositiveInt] = [64, 64, 128, 128],  # noqa: B006
        first: bool = False,
        embedding: PositiveInt = 128,
    ) -> None:
        super().__init__()
        check_levels("NCSNppDiscriminator", channels)
        check_context("NCSNppDiscriminator", cond)
        rank = len(get_map_size("NCSNppDiscriminator", x))
        self.join = MapJoin(x, cond.concat, channels[0])
        self.time = _Time(cond.time, embedding) if cond.time else None
        self.conv_in = init_xavier(conv(rank, self.join.channels, channels[0], kernel=1))
        self.blocks = nn.ModuleList(
            _Block(rank, narrow, wide, width=embedding if cond.time else None, downsamples=first or index > 0)
            for index, (narrow, wide) in enumerate(pairwise(channels))
        )
        last = channels[-1]
        self.std = MinibatchStd(group=4)
        self.conv_out = init_xavier(conv(rank, last + 1, last), 1e-10)
        self.out = init_xavier(nn.Linear(last, 1))
        self.projection = Projection(replace(cond, time=0), last)
        self.heads = Heads(heads, last)  # last, so that it moves no other draw

    @property
    def units(self) -> list[nn.Module]:
        """The residual blocks."""
        return list(self.blocks)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`, `b`.

        Raises:
            ValueError: If a condition of the type `cond` is missing.
        """
        return self.judge(x, cond).logits

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        """Computes the logits of `x`, the maps after each block, and the heads."""
        time = None if self.time is None else self.time(cond, x)
        h, maps = self.conv_in(self.join(x, cond.concat)), []
        for block in self.blocks:
            h = block(h, time)
            maps.append(h)
        features = F.leaky_relu(self.conv_out(self.std(h)), _SLOPE).flatten(2).sum(2)
        logits: Tensor = self.out(features).squeeze(1) + self.projection(features, cond)
        return Judgement(logits, tuple(maps), self.heads(features))


class _Block(nn.Module):
    """A residual block that may downsample."""

    def __init__(self, rank: int, channels: int, out_channels: int, *, width: int | None, downsamples: bool) -> None:
        super().__init__()
        self.conv_0 = init_xavier(conv(rank, channels, out_channels))
        self.embed = init_xavier(nn.Linear(width, out_channels)) if width else None
        self.conv_1 = init_xavier(conv(rank, out_channels, out_channels), 1e-10)
        self.skip = init_xavier(conv(rank, channels, out_channels, kernel=1, bias=False))
        self.halve = FIRDownsample(rank) if downsamples else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.conv_0(F.leaky_relu(x, _SLOPE))
        if self.embed is not None and time is not None:
            h = h + broadcast(self.embed(time), h)
        h = self.conv_1(self.halve(F.leaky_relu(h, _SLOPE)))
        return (self.skip(self.halve(x)) + h) * math.sqrt(0.5)


class _Time(nn.Module):
    """Embeds the time, or several, for the blocks."""

    def __init__(self, num: int, width: int) -> None:
        super().__init__()
        self.num, self.width = num, width + width % 2
        self.layers = nn.Sequential(
            init_xavier(nn.Linear(num * self.width, width)), nn.LeakyReLU(_SLOPE), init_xavier(nn.Linear(width, width))
        )

    def forward(self, cond: Cond, x: Tensor) -> Tensor:
        waves = sinusoidal_embedding(require_times(cond, self.num), self.width)
        return F.leaky_relu(self.layers(waves.flatten(1).to(x.dtype)), _SLOPE)
