"""A convolutional encoder and its mirror, in the manner of latent diffusion's first stage.

    encoder: conv -> levels of residual blocks, halved between -> middle -> norm, SiLU, conv
    decoder: conv -> middle -> levels of residual blocks, doubled between -> norm, SiLU, conv, tanh where x is bounded

A level stands for each entry of `channels`, so two entries halve once (f2) and four halve three times (f8). Odd sizes
are rounded up on the way down and cropped on the way up: any size comes back. Signals, images and volumes share the
code.

A hierarchy has a map for each of several levels, coarsest first. The encoder's finer maps are taken where their level
ends, before it is halved, each through a norm, SiLU and a convolution of its own; the decoder joins each as further
channels where its level begins. So the coarsest map sees the most of x, and the finer ones add what it lacks.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), section 3.1,
    https://arxiv.org/abs/1906.00446
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), appendix G,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import Attention, attended
from modkit.nn.blocks import Downsample, ResidualBlock, Upsample, check_levels, conv, map_size, norm, pyramid
from modkit.types import Event, TensorType, Value, levels

__all__ = ["ConvDecoder", "ConvEncoder"]


class ConvEncoder(nn.Module):
    """Maps signals, images or volumes to features `h` of fewer positions, `b channels[-1] h w`, or to a hierarchy.

    Args:
        x: Type of the data: continuous maps.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        blocks: Residual blocks a level.
        attention: Resolutions (the largest side of a level's maps) at which to attend.
        dropout: Share of the values dropped in each residual block.
        levels: Resolutions at which a map is emitted, two or more, the last level's among them (`[8, 4]`); None: the
            last level's map alone.

    Raises:
        ValueError: If `x` is a vector or codes, there is no level or block, or a resolution is no level's.
    """

    h: Event

    def __init__(
        self,
        x: TensorType,
        *,
        channels: list[int] = [32, 64],  # noqa: B006
        blocks: int = 1,
        attention: list[int] = [],  # noqa: B006
        dropout: float = 0.0,
        levels: list[int] | None = None,
    ) -> None:
        super().__init__()
        check_levels("ConvEncoder", channels, blocks)
        sizes = pyramid(map_size("ConvEncoder", x), len(channels))
        attends = attended("ConvEncoder", sizes, attention)
        rank = len(sizes[0])
        emits = _emitting(sizes, levels) if levels is not None else [False] * len(sizes)
        coarsest = TensorType((channels[-1], *sizes[-1]))
        finer = [TensorType((wide, *size)) for wide, size, emit in zip(channels, sizes, emits) if emit][:-1]
        self.h = (coarsest, *reversed(finer)) if finer else coarsest
        self.conv_in = conv(rank, x.shape[0], channels[0])
        self.levels = nn.ModuleList()
        for level, (wide, attend) in enumerate(zip(channels, attends)):
            parts = _level(rank, channels[max(level - 1, 0)], wide, blocks, attend, dropout)
            if level + 1 < len(channels):
                parts.append(Downsample(rank, wide))
            self.levels.append(nn.Sequential(*parts))
        self.middle = _middle(rank, channels[-1], attends[-1], dropout)
        self.norm_out = norm(channels[-1])
        self.conv_out = conv(rank, channels[-1], channels[-1])
        self.heads = nn.ModuleDict(
            {str(level): _head(rank, channels[level]) for level, emit in enumerate(emits[:-1]) if emit}
        )

    def forward(self, x: Tensor) -> Value:
        """Encodes `x`, `b c h w` of any size; a hierarchy comes coarsest first."""
        y: Tensor = self.conv_in(x)
        maps: list[Tensor] = []
        for index, level in enumerate(self.levels):
            for part in level.children():
                if isinstance(part, Downsample) and str(index) in self.heads:
                    maps.append(self.heads[str(index)](y))
                y = part(y)
        y = self.conv_out(F.silu(self.norm_out(self.middle(y))))
        return (y, *reversed(maps)) if maps else y


class ConvDecoder(nn.Module):
    """Maps latents to maps of type `x` at more positions; bounded by tanh where x has a range.

    Args:
        z: Type of the latents: as many halvings below x as there are levels after the first; of a hierarchy so is the
            first, and each other is of a later level's size, in the levels' order.
        x: Type to emit.
        channels: Channels of each level, coarsest first; the resolution is doubled between levels.
        blocks: Residual blocks a level.
        attention: Resolutions (the largest side of a level's maps) at which to attend.
        dropout: Share of the values dropped in each residual block.

    Raises:
        ValueError: If `z` is of another size, `z` or `x` is a vector or codes, there is no level or block, or a
            resolution is no level's.
    """

    last_layer: str | None = "conv_out.weight"

    def __init__(
        self,
        z: Event,
        x: TensorType,
        *,
        channels: list[int] = [64, 32],  # noqa: B006
        blocks: int = 1,
        attention: list[int] = [],  # noqa: B006
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        coarsest, *finer = levels(z)
        check_levels("ConvDecoder", channels, blocks)
        sizes = pyramid(map_size("ConvDecoder", x), len(channels))[::-1]
        if map_size("ConvDecoder", coarsest) != sizes[0]:
            raise ValueError(
                f"ConvDecoder with {len(channels)} levels expects z of size {sizes[0]} for x of size {sizes[-1]}, "
                f"got {coarsest.shape[1:]}"
            )
        joined = _joining(sizes, finer)
        attends = attended("ConvDecoder", sizes, attention)
        rank = len(sizes[0])
        self.range = x.range
        self._crops = [tuple(2 * n - m for n, m in zip(low, high)) for low, high in zip(sizes, sizes[1:])]
        self.conv_in = conv(rank, coarsest.shape[0], channels[0])
        self.middle = _middle(rank, channels[0], attends[0], dropout)
        self.levels = nn.ModuleList(
            nn.Sequential(*_level(rank, channels[max(level - 1, 0)], wide, blocks, attend, dropout))
            for level, (wide, attend) in enumerate(zip(channels, attends))
        )
        self.doublings = nn.ModuleList(Upsample(rank, wide) for wide in channels[:-1])
        self.joins = nn.ModuleDict(
            {
                str(level): conv(rank, channels[level - 1] + type.shape[0], channels[level - 1])
                for level, type in joined.items()
            }
        )
        self.norm_out = norm(channels[-1])
        self.conv_out = conv(rank, channels[-1], x.shape[0])

    def forward(self, z: Value) -> Tensor:
        """Decodes `z`, `b c h w`: to x's size from the latent's own size, in proportion from any other."""
        coarsest, *finer = z if isinstance(z, tuple) else (z,)
        y: Tensor = self.levels[0](self.middle(self.conv_in(coarsest)))
        for index, (doubling, crop) in enumerate(zip(self.doublings, self._crops), start=1):
            y = doubling(y, [2 * n - odd for n, odd in zip(y.shape[2:], crop)])
            if str(index) in self.joins:
                y = self.joins[str(index)](torch.cat([y, finer.pop(0)], dim=1))
            y = self.levels[index](y)
        y = self.conv_out(F.silu(self.norm_out(y)))
        if self.range is not None:
            low, high = self.range
            y = low + (high - low) * (torch.tanh(y) + 1) / 2
        return y


def _level(rank: int, channels: int, wide: int, blocks: int, attend: bool, dropout: float) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for block in range(blocks):
        parts.append(ResidualBlock(rank, wide if block else channels, wide, dropout=dropout))
        if attend:
            parts.append(Attention(wide))
    return parts


def _middle(rank: int, channels: int, attend: bool, dropout: float) -> nn.Sequential:
    first, last = (ResidualBlock(rank, channels, channels, dropout=dropout) for _ in range(2))
    return nn.Sequential(first, Attention(channels), last) if attend else nn.Sequential(first, last)


def _head(rank: int, channels: int) -> nn.Sequential:
    return nn.Sequential(norm(channels), nn.SiLU(), conv(rank, channels, channels))


def _emitting(sizes: Sequence[Sequence[int]], resolutions: Sequence[int]) -> list[bool]:
    """Which levels, finest first, emit a map."""
    sides = [max(size) for size in sizes]
    emits = [side in resolutions for side in sides]
    if len(resolutions) < 2 or sum(emits) != len(resolutions) or not emits[-1]:
        raise ValueError(
            f"ConvEncoder expects levels at two or more resolutions among {sides}, the last among them, "
            f"got {list(resolutions)}"
        )
    return emits


def _joining(sizes: list[tuple[int, ...]], finer: Sequence[TensorType]) -> dict[int, TensorType]:
    """The levels, coarsest first, that each latent after the coarsest is joined at."""
    joined: dict[int, TensorType] = {}
    first = 1
    for type in finer:
        size = map_size("ConvDecoder", type)
        if size not in sizes[first:]:
            raise ValueError(
                f"ConvDecoder expects the maps of a hierarchy in turn at sizes among {list(sizes)}, got {type}"
            )
        first = sizes.index(size, first) + 1
        joined[first - 1] = type
    return joined
