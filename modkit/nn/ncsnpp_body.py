r"""The pyramid of an NCSN++: a U-Net of its blocks, with paths beside the way down and the way up.

    down    h = conv(x); each level's blocks, then a halving block; every result is kept as a skip
    middle  block, attention, block
    up      each level's blocks over [h, skip], one more than down, then a doubling block

Beside the way down the input is resampled too and added at each halving, beside the way up the output may be summed
over the levels. Sizes are rounded up on the way down and cropped on the way up.

Shape letters: b batch, c channels, d width, h w spatial (one, two or three sizes).

References:
    Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), appendix H,
    https://arxiv.org/abs/2011.13456
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from modkit.nn.attention import attended
from modkit.nn.blocks import check_levels, conv, pyramid
from modkit.nn.embeddings import MapJoin
from modkit.nn.mlp import squash
from modkit.nn.ncsnpp_blocks import Block, Halving, Head, Output, Path, Unit, cropped, scaled
from modkit.types import Cond, TensorType

__all__ = ["Body", "Embedding"]


class Embedding(nn.Module, ABC):
    """Conditions without positions as one vector."""

    width: int
    """Width of the vector."""

    embeds: bool
    """Whether there is anything to embed."""

    @abstractmethod
    def forward(self, cond: Cond, x: Tensor) -> Tensor:
        """The vector, `b width`, in the dtype of `x`, `b ...`."""


class Body(nn.Module):
    """The pyramid, given what embeds its conditions.

    Args:
        size: The spatial size of the maps.
        out: Type of the output, of that size; a tanh maps to its range where it has one.
        embedding: Makes of the conditions and x what is added in each block, `b width`, where it `embeds` anything.
        mapping: Makes of the noise and x what modulates each norm, `b style`, or None.
        join: Joins a map to x.
        channels: Channels of each level, finest first.
        stem: Channels of the first map.
        blocks: Residual blocks a level on the way down; one more on the way up.
        attention: Resolutions (the largest side of a level's maps) at which to attend; the middle always does.
        fir: Whether to resample under the filter [1, 3, 3, 1], else by means of two and repetition.
        progressive_input: How the resampled input is added on the way down.
        progressive: How the output is made.
        style: Width of what modulates each norm.
        dropout: Share of the values dropped in each residual block.
        strided: Whether, without that filter, a residual path halves by a convolution of stride 2, else by means of two
            after a convolution.

    Raises:
        ValueError: If there is no level or block, a resolution is no level's, a mode is unknown, or the stem has no
            channel; it names the subclass.
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
        check_levels(owner, channels, blocks)
        _check(owner, stem, {"progressive_input": progressive_input, "progressive": progressive})
        attends = attended(owner, pyramid(size, len(channels)), attention)

        self.out = out
        self.embedding = embedding
        self.mapping = mapping
        width = embedding.width if embedding.embeds else None

        def block(wide_in: int, wide: int, resample: Literal["down", "up"] | None = None) -> Block:
            return Block(rank, wide_in, wide, width=width, style=style, resample=resample, fir=fir, dropout=dropout)

        self.join = join
        self.conv_in = scaled(conv(rank, join.channels, stem))
        self.down = nn.ModuleList()
        skips, wide_in, beside = [stem], stem, join.channels
        for level, wide in enumerate(channels):
            if level:
                halving = block(wide_in, wide_in, "down")
                path = progressive_input
                self.down.append(Halving(halving, rank, beside, wide_in, path=path, fir=fir, strided=strided))
                beside = wide_in if path == "residual" else beside
                skips.append(wide_in)
            for _ in range(blocks):
                self.down.append(Unit(block(wide_in, wide), wide, attends[level]))
                wide_in = wide
                skips.append(wide)
        self.middle = nn.ModuleList([Unit(block(wide, wide), wide, True), Unit(block(wide, wide), wide, False)])
        self.up = nn.ModuleList()
        coarser = None
        for level, wide in reversed(list(enumerate(channels))):
            for index in range(blocks + 1):
                attend = attends[level] and index == blocks
                self.up.append(Unit(block(wide_in + skips.pop(), wide), wide, attend))
                wide_in = wide
            if progressive == "skip" or (progressive == "residual" and len(channels) > 1):
                share = out.shape[0] if progressive == "skip" else wide
                self.up.append(Output(rank, wide, share, coarser, path=progressive, fir=fir))
                coarser = share
            if level:
                self.up.append(block(wide, wide, "up"))
        self.head = None if progressive == "skip" else Head(rank, wide_in, out.shape[0])

    def forward(self, x: Tensor, cond: Cond) -> Tensor:
        """Evaluates the network at `x`, `b c h w` of any size.

        Raises:
            ValueError: If a condition that the type has is missing.
        """
        return self.embedded(x, cond, self.embedding(cond, x) if self.embedding.embeds else None)

    def embedded(self, x: Tensor, cond: Cond, embedding: Tensor | None) -> Tensor:
        """The network at `x`, given what is added in each block, `b width`."""
        style = None if self.mapping is None else self.mapping(cond.noise, x)
        beside = self.join(x, cond.concat)
        h = self.conv_in(beside)
        skips = [h]
        for module in self.down:
            if isinstance(module, Halving):
                h, beside = module(h, beside, embedding, style)
            else:
                h = module(h, embedding, style)
            skips.append(h)
        for module in self.middle:
            h = module(h, embedding, style)
        y = h
        for module in self.up:
            if isinstance(module, Unit):
                h = module(torch.cat([h, skips.pop()], dim=1), embedding, style)
            elif isinstance(module, Output):
                h, y = module(h, y)
            else:
                h = cropped(module(h, embedding, style), skips[-1])
        raw: Tensor = y if self.head is None else self.head(h)
        return squash(raw, self.out)


def _check(owner: str, stem: int, paths: dict[str, Path]) -> None:
    if stem < 1:
        raise ValueError(f"{owner} expects stem of at least 1, got {stem}")
    for name, path in paths.items():
        if path not in ("none", "skip", "residual"):
            raise ValueError(f"{owner} expects {name} to be none, skip or residual, got {path!r}")
