r"""The body of NCSN++: a U-Net of its blocks, with progressive paths parallel to them.

    down    h = conv(x); each level's blocks, then a downsampling block; every result is kept as a skip
    middle  block, attention, block
    up      each level's blocks over [h, skip], one more than down, then an upsampling block

On the way down the input may be downsampled as well and added at each level; on the way up the output may be summed
over the levels. Sizes are rounded up on the way down and cropped on the way up. The paper is that of `NCSNpp`.

Shape letters: b batch, c channels, d width, h w spatial (one, two or three sizes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from modkit.nn.attention import find_attention_levels
from modkit.nn.blocks import check_levels, conv, crop, init_xavier, make_pyramid
from modkit.nn.embeddings import MapJoin
from modkit.nn.mlp import squash
from modkit.nn.ncsnpp_blocks import Block, DownsampleBlock, Head, Output, Path, Unit
from modkit.nn.taps import UNTAPPED, Taps
from modkit.nn.unet_body import UShape
from modkit.types import Cond, TensorType

__all__ = ["Body", "Embedding"]


class Embedding(nn.Module, ABC):
    """Embeds the conditions without positions as one vector."""

    width: int
    """Width of the vector."""

    embeds: bool
    """Whether there is anything to embed."""

    @abstractmethod
    def forward(self, cond: Cond, x: Tensor) -> Tensor:
        """Computes the vector, `b width`, in the dtype of `x`, `b ...`."""


class Body(UShape):
    """The U-Net, given the modules that embed its conditions; the arguments not listed are those of `NCSNpp`.

    Args:
        size: Spatial size of the maps.
        out: Type of the output, of that size. If it has a range, a tanh maps the output to it.
        embedding: Computes from the conditions and x the vector that is added in each block, `b width`. It is used if
            it `embeds` anything.
        mapping: Computes from the noise and x the vector that modulates each norm, `b style`, or None.
        join: Joins a conditioning map to x.
        style: Width of the vector that modulates each norm.
        strided: Whether a residual path without that filter downsamples by a convolution of stride 2; otherwise it
            convolves and then averages pairs.

    Raises:
        ValueError: If there is no level or block, a resolution belongs to no level, a mode is unknown, or the stem has
            no channel. The message names the subclass.
    """

    def __init__(
        self,
        size: Sequence[int],
        out: TensorType,
        *,
        embedding: Embedding,
        mapping: nn.Module | None,
        join: MapJoin,
        channels: Sequence[int],
        stem: int,
        blocks: int,
        attention: Sequence[int],
        fir: bool,
        progressive_input: Path,
        progressive: Path,
        style: int | None,
        dropout: float,
        strided: bool = True,
    ) -> None:
        super().__init__()
        owner, rank = type(self).__name__, len(size)
        check_levels(owner, channels)
        _check(owner, stem, {"progressive_input": progressive_input, "progressive": progressive})
        sizes = make_pyramid(size, len(channels))
        attends = find_attention_levels(owner, sizes, attention)

        self.out = out
        self.embedding = embedding
        self.mapping = mapping
        width = embedding.width if embedding.embeds else None

        def block(wide_in: int, wide: int, resample: Literal["down", "up"] | None = None) -> Block:
            return Block(rank, wide_in, wide, width=width, style=style, resample=resample, fir=fir, dropout=dropout)

        self.maps = {}
        self.join = join
        self.conv_in = init_xavier(conv(rank, join.channels, stem))
        self.down = nn.ModuleList()
        skips, wide_in, side = [stem], stem, join.channels
        for level, wide in enumerate(channels):
            if level:
                halving = block(wide_in, wide_in, "down")
                path = progressive_input
                self.down.append(DownsampleBlock(halving, rank, side, wide_in, path=path, fir=fir, strided=strided))
                self.maps[f"down.{len(self.down) - 1}"] = TensorType((wide_in, *sizes[level]))
                side = wide_in if path == "residual" else side
                skips.append(wide_in)
            for _ in range(blocks):
                self.down.append(Unit(block(wide_in, wide), wide, attends[level]))
                self.maps[f"down.{len(self.down) - 1}"] = TensorType((wide, *sizes[level]))
                wide_in = wide
                skips.append(wide)
        self.middle = nn.ModuleList([Unit(block(wide, wide), wide, True), Unit(block(wide, wide), wide, False)])
        self.maps |= {f"middle.{index}": TensorType((wide, *sizes[-1])) for index in range(2)}
        self.up = nn.ModuleList()
        coarser = None
        for level, wide in reversed(list(enumerate(channels))):
            for index in range(blocks + 1):
                attend = attends[level] and index == blocks
                self.up.append(Unit(block(wide_in + skips.pop(), wide), wide, attend))
                self.maps[f"up.{len(self.up) - 1}"] = TensorType((wide, *sizes[level]))
                wide_in = wide
            if progressive == "skip" or (progressive == "residual" and len(channels) > 1):
                share = out.shape[0] if progressive == "skip" else wide
                self.up.append(Output(rank, wide, share, coarser, path=progressive, fir=fir))
                coarser = share
            if level:
                self.up.append(block(wide, wide, "up"))
                self.maps[f"up.{len(self.up) - 1}"] = TensorType((wide, *sizes[level - 1]))
        self.head = None if progressive == "skip" else Head(rank, wide_in, out.shape[0])

    def run(self, x: Tensor, cond: Cond, taps: Taps) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size, given only conditions."""
        return self.evaluate(x, cond, self.embedding(cond, x) if self.embedding.embeds else None, taps)

    def evaluate(self, x: Tensor, cond: Cond, embedding: Tensor | None, taps: Taps = UNTAPPED) -> Tensor:
        """Evaluates the network at `x`, given the vector that is added in each block, `b width`.

        What the blocks compute passes through `taps`, under the names of `maps`; progressive paths do not.

        Raises:
            ValueError: If a condition of the type `cond` is missing.
        """
        style = None if self.mapping is None else self.mapping(cond.noise, x)
        side = self.join(x, cond.concat)
        h = self.conv_in(side)
        skips = [h]
        for index, module in enumerate(self.down):
            if isinstance(module, DownsampleBlock):
                h, side = module(h, side, embedding, style)
            else:
                h = module(h, embedding, style)
            h = taps(f"down.{index}", h)
            skips.append(h)
        for index, module in enumerate(self.middle):
            h = taps(f"middle.{index}", module(h, embedding, style))
        y = h
        for index, module in enumerate(self.up):
            if isinstance(module, Output):
                h, y = module(h, y)
                continue
            if isinstance(module, Unit):
                h = module(torch.cat([h, skips.pop()], dim=1), embedding, style)
            else:
                h = crop(module(h, embedding, style), skips[-1].shape[2:])
            h = taps(f"up.{index}", h)
        raw: Tensor = y if self.head is None else self.head(h)
        return squash(raw, self.out)


def _check(owner: str, stem: int, paths: dict[str, Path]) -> None:
    for name, path in paths.items():
        if path not in ("none", "skip", "residual"):
            raise ValueError(f"{owner} expects {name} to be none, skip or residual, got {path!r}")
