r"""StyleGAN2's discriminator: residual blocks that halve the size under the filter [1, 3, 3, 1].

    block   h <- (conv_1x1(down h) + a(conv_1(down a(conv_0(h))))) / sqrt(2),   a(h) = sqrt(2) LReLU(h)
    phi     a(W a(conv([h, std]))),   logits = w . phi + b + phi^T V e(cond) / sqrt(d)

std is `MinibatchStd`, which compares the samples of a batch, so losses depend on how a batch is split. Learning rates
are equalised.

Shape letters: b batch, c channels, d features, h w spatial (one, two or three sizes).

References:
    Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), figure 7,
    https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

from torch import Tensor, nn

from modkit.nn.blocks import choose_levels, conv
from modkit.nn.embeddings import MapJoin, check_context
from modkit.nn.equalized import equalize
from modkit.nn.fir import FIRDownsample
from modkit.nn.heads import Heads
from modkit.nn.minibatch_std import MinibatchStd
from modkit.nn.projection import Projection
from modkit.nn.stylegan2 import activate
from modkit.types import Cond, CondType, Judgement, NonNegativeInt, PositiveInt, TensorType, checked

__all__ = ["StyleGAN2Discriminator"]


@checked
class StyleGAN2Discriminator(nn.Module):
    """Distinguishes real from fake signals, images or volumes, conditioned by projection.

    Args:
        x: Type of the data: continuous maps.
        cond: Type of the conditions. A map is joined to x as further channels; tokens are not supported.
        heads: Widths of the heads by name, linear layers of phi; by default none.
        channels: Channels of the finest maps; each coarser level has twice as many, up to eight times as many.
        group: Number of samples whose standard deviation is a feature, or 0. With any, logits depend on the batch.

    Raises:
        ValueError: If x is no map, `cond` has a context, or a map that has another rank than x or is a finer map of
            codes, `channels` is below 1 or `group` negative.

    Examples:
        >>> import torch
        >>> discriminator = StyleGAN2Discriminator(TensorType((3, 16, 16)), CondType(labels=10), channels=4)
        >>> discriminator(torch.zeros(2, 3, 16, 16), Cond(labels=torch.tensor([3, 7]))).shape
        torch.Size([2])
    """

    batch_independent: bool

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        heads: Mapping[str, int] | None = None,
        *,
        channels: PositiveInt = 64,
        group: NonNegativeInt = 4,
    ) -> None:
        super().__init__()
        levels = choose_levels("StyleGAN2Discriminator", x, channels)
        check_context("StyleGAN2Discriminator", cond)
        rank, (size, last) = len(levels[0].size), levels[-1]
        self.join = MapJoin(x, cond.concat, channels)
        self.conv_in = equalize(conv(rank, self.join.channels, channels, kernel=1))
        self.blocks = nn.ModuleList(_Block(rank, fine.channels, coarse.channels) for fine, coarse in pairwise(levels))
        self.batch_independent = not group
        self.compare = MinibatchStd(group=group) if group else nn.Identity()
        self.conv_out = equalize(conv(rank, last + bool(group), last))
        self.hidden = equalize(nn.Linear(last * math.prod(size), last))
        self.out = equalize(nn.Linear(last, 1))
        self.projection = equalize(Projection(cond, last))
        self.heads = equalize(Heads(heads, last))

    @property
    def units(self) -> list[nn.Module]:
        """The residual blocks."""
        return list(self.blocks)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of `x`, `b`."""
        return self._judge(x, cond).logits

    def judge(self, x: Tensor, cond: Cond) -> Judgement:
        """Computes the logits of `x`, the maps of each level, and the heads."""
        return self._judge(x, cond)

    def _judge(self, x: Tensor, cond: Cond) -> Judgement:
        maps = [activate(self.conv_in(self.join(x, cond.concat)))]
        for block in self.blocks:
            maps.append(block(maps[-1]))
        features = activate(self.hidden(activate(self.conv_out(self.compare(maps[-1]))).flatten(1)))
        logits = self.out(features).squeeze(1) + self.projection(features, cond)
        return Judgement(logits, tuple(maps), self.heads(features))


class _Block(nn.Module):
    """A residual block that halves the size, n to ceil(n / 2)."""

    def __init__(self, rank: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_0 = equalize(conv(rank, channels, channels))
        self.conv_1 = equalize(FIRDownsample(rank, (channels, out_channels)))
        self.halve = FIRDownsample(rank)
        self.skip = equalize(conv(rank, channels, out_channels, kernel=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to `b out_channels h w` of half the size."""
        return (self.skip(self.halve(x)) + activate(self.conv_1(activate(self.conv_0(x))))) * math.sqrt(0.5)
