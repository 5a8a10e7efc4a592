r"""The denoising diffusion GAN's discriminator: residual convolutions down to a few positions, told the time.

    h_0 = conv_1x1([x, concat])
    h_i = (skip(R h_{i-1}) + conv_1(R LReLU(conv_0(LReLU(h_{i-1})) + W a))) / sqrt(2)
    a = LReLU(MLP(sin, cos of time))
    phi = sum over positions of LReLU(conv([h, std])),   logits = w . phi + b + phi^T V e(cond) / sqrt(c)

R halves under the filter [1, 3, 3, 1], or is the identity; std is `MinibatchStd`, in groups of 4: it looks across the
batch, so that losses depend on how a batch is split. Conditions without positions, but for the time, are projected,
which the paper has none of.

Shape letters: b batch, c channels, d width of the time's embedding, h w spatial (one, two or three sizes).

References:
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), appendix C,
    https://arxiv.org/abs/2112.07804
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import check_levels, conv, map_size
from modkit.nn.embeddings import MapJoin, sinusoidal
from modkit.nn.fir import Halve
from modkit.nn.minibatch_std import MinibatchStd
from modkit.nn.mlp import Projection
from modkit.nn.ncsnpp_blocks import scaled
from modkit.types import Cond, CondType, TensorType

__all__ = ["NCSNppDiscriminator"]

_SLOPE = 0.2


class NCSNppDiscriminator(nn.Module):
    """Tells real from fake signals, images or volumes, given the time and a map beside them where there are any.

    Args:
        x: Type of the data: continuous maps.
        cond: Conditions: a map is joined to x as further channels, time is added in each block, the rest is projected,
            tokens are refused.
        channels: Channels of the first map, then those of each block.
        first: Whether the first block halves the size too, as for large images; the others do.
        embedding: Width of the time's embedding.

    Raises:
        ValueError: If x is a vector or codes, `cond` has a context or a map that is finer or no map, or a number is
            below 1.
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        *,
        channels: list[int] = [64, 64, 128, 128],  # noqa: B006
        first: bool = False,
        embedding: int = 128,
    ) -> None:
        super().__init__()
        check_levels("NCSNppDiscriminator", channels, 1)
        if embedding < 1:
            raise ValueError(f"NCSNppDiscriminator expects embedding of at least 1, got {embedding}")
        if cond.context is not None:
            raise ValueError(f"NCSNppDiscriminator expects cond without context, got {cond}")
        rank = len(map_size("NCSNppDiscriminator", x))
        self.join = MapJoin(x, cond.concat, channels[0])
        self.time = _Time(embedding) if cond.time else None
        self.conv_in = scaled(conv(rank, self.join.channels, channels[0], kernel=1))
        self.blocks = nn.ModuleList(
            _Block(rank, narrow, wide, width=embedding if cond.time else None, halves=first or index > 0)
            for index, (narrow, wide) in enumerate(pairwise(channels))
        )
        last = channels[-1]
        self.std = MinibatchStd(group=4)
        self.conv_out = scaled(conv(rank, last + 1, last), 1e-10)
        self.out = scaled(nn.Linear(last, 1))
        self.projection = Projection(replace(cond, time=False), last)

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Logits of `x`, `b`.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        time = None if self.time is None else self.time(cond.time, x)
        h = self.conv_in(self.join(x, cond.concat))
        for block in self.blocks:
            h = block(h, time)
        features = F.leaky_relu(self.conv_out(self.std(h)), _SLOPE).flatten(2).sum(2)
        logits: Tensor = self.out(features).squeeze(1) + self.projection(features, cond)
        return logits


class _Block(nn.Module):
    """A residual block, which may halve the size."""

    def __init__(self, rank: int, channels: int, out_channels: int, *, width: int | None, halves: bool) -> None:
        super().__init__()
        self.conv_0 = scaled(conv(rank, channels, out_channels))
        self.embed = scaled(nn.Linear(width, out_channels)) if width else None
        self.conv_1 = scaled(conv(rank, out_channels, out_channels), 1e-10)
        self.skip = scaled(_unbiased(rank, channels, out_channels))
        self.halve = Halve(rank) if halves else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.conv_0(F.leaky_relu(x, _SLOPE))
        if self.embed is not None and time is not None:
            added = self.embed(time)
            h = h + added.reshape(*added.shape, *[1] * (h.ndim - 2))
        h = self.conv_1(self.halve(F.leaky_relu(h, _SLOPE)))
        y: Tensor = (self.skip(self.halve(x)) + h) * math.sqrt(0.5)
        return y


class _Time(nn.Module):
    """The embedding of time that the blocks take."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width + width % 2
        self.layers = nn.Sequential(
            scaled(nn.Linear(self.width, width)), nn.LeakyReLU(_SLOPE), scaled(nn.Linear(width, width))
        )

    def forward(self, time: Tensor | None, x: Tensor) -> Tensor:
        if time is None:
            raise ValueError("NCSNppDiscriminator expects a Cond with `time`, as its type says, got None")
        return F.leaky_relu(self.layers(sinusoidal(time, self.width).to(x.dtype)), _SLOPE)


def _unbiased(rank: int, channels: int, out_channels: int) -> nn.Module:
    convolutions: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    return convolutions[rank](channels, out_channels, 1, bias=False)
