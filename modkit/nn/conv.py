"""A convolutional encoder and its mirror, in the manner of latent diffusion's first stage.

    encoder: conv -> levels of residual blocks, halved between -> middle -> norm, SiLU, conv
    decoder: conv -> middle -> levels of residual blocks, doubled between -> norm, SiLU, conv, tanh where x is bounded

A level stands for each entry of `channels`, so two entries halve once (f2) and four halve three times (f8). Odd sizes
are rounded up on the way down and cropped on the way up: any size comes back. Signals, images and volumes share the
code.

A hierarchy has a map for each of several levels, coarsest first. The encoder's finer maps are taken where their level
ends, before it is halved, each through a norm, SiLU and a convolution of its own; the decoder joins each as further
channels where its level begins. So the coarsest map sees the most of x, and the finer ones add what it lacks.

In the `taming` style both are the authors' first stages, of taming-transformers and of latent diffusion (whose decoder
has a block a level more than the encoder): 32 groups a norm, attention with one head and always in the middle, and the
halved map's windows starting at every second position. The encoder emits `out_channels`; the decoder begins with a 1x1
convolution to `in_channels`.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), section 3.1,
    https://arxiv.org/abs/1906.00446
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), appendix G,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import Attention, attended
from modkit.nn.blocks import (
    Downsample,
    ResidualBlock,
    Upsample,
    check_levels,
    conv,
    map_size,
    norm,
    norm_of_32,
    pyramid,
)
from modkit.types import Event, TensorType, Value, split_levels

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
        out_channels: Channels of the last level's map as it is emitted; the last of `channels` where not given.
        resampling: Whether maps are halved by a convolution (`conv`) or by the mean of neighbours (`plain`).
        style: How blocks normalise, attend and halve: `modkit`, or `taming`, see above.

    Raises:
        ValueError: If `x` is a vector or codes, there is no level or block, a resolution is no level's, a choice is
            unknown, or a number of channels does not suit the style.
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
        out_channels: int | None = None,
        resampling: Literal["conv", "plain"] = "conv",
        style: Literal["modkit", "taming"] = "modkit",
    ) -> None:
        super().__init__()
        check_levels("ConvEncoder", channels, blocks)
        made = _chosen("ConvEncoder", style, resampling, "out_channels", out_channels)
        sizes = pyramid(map_size("ConvEncoder", x), len(channels))
        attends = attended("ConvEncoder", sizes, attention)
        rank = len(sizes[0])
        emits = _emitting(sizes, levels) if levels is not None else [False] * len(sizes)
        emitted = channels[-1] if out_channels is None else out_channels
        coarsest = TensorType((emitted, *sizes[-1]))
        finer = [TensorType((wide, *size)) for wide, size, emit in zip(channels, sizes, emits) if emit][:-1]
        self.h = (coarsest, *reversed(finer)) if finer else coarsest
        self.conv_in = conv(rank, x.shape[0], channels[0])
        self.levels = nn.ModuleList()
        for level, (wide, attend) in enumerate(zip(channels, attends)):
            parts = made.level(rank, channels[max(level - 1, 0)], wide, blocks, attend, dropout)
            if level + 1 < len(channels):
                parts.append(Downsample(rank, wide, padding=made.padding, learned=resampling == "conv"))
            self.levels.append(nn.Sequential(*parts))
        self.middle = made.middle(rank, channels[-1], attends[-1], dropout)
        self.norm_out = made.normalize(channels[-1])
        self.conv_out = conv(rank, channels[-1], emitted)
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
        in_channels: Channels to which a 1x1 convolution maps the coarsest latent first; no such layer where not given.
        resampling: Whether doubled maps go through a convolution (`conv`) or not (`plain`).
        style: How blocks normalise and attend: `modkit`, or `taming`, see above.

    Raises:
        ValueError: If `z` is of another size, `z` or `x` is a vector or codes, there is no level or block, a resolution
            is no level's, a choice is unknown, or a number of channels does not suit the style.
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
        in_channels: int | None = None,
        resampling: Literal["conv", "plain"] = "conv",
        style: Literal["modkit", "taming"] = "modkit",
    ) -> None:
        super().__init__()
        coarsest, *finer = split_levels(z)
        check_levels("ConvDecoder", channels, blocks)
        made = _chosen("ConvDecoder", style, resampling, "in_channels", in_channels)
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
        self.project = conv(rank, coarsest.shape[0], in_channels, kernel=1) if in_channels else nn.Identity()
        self.conv_in = conv(rank, in_channels or coarsest.shape[0], channels[0])
        self.middle = made.middle(rank, channels[0], attends[0], dropout)
        self.levels = nn.ModuleList(
            nn.Sequential(*made.level(rank, channels[max(level - 1, 0)], wide, blocks, attend, dropout))
            for level, (wide, attend) in enumerate(zip(channels, attends))
        )
        learned = resampling == "conv"
        self.doublings = nn.ModuleList(Upsample(rank, wide, learned=learned) for wide in channels[:-1])
        self.joins = nn.ModuleDict(
            {
                str(level): conv(rank, channels[level - 1] + type.shape[0], channels[level - 1])
                for level, type in joined.items()
            }
        )
        self.norm_out = made.normalize(channels[-1])
        self.conv_out = conv(rank, channels[-1], x.shape[0])

    def forward(self, z: Value) -> Tensor:
        """Decodes `z`, `b c h w`: to x's size from the latent's own size, in proportion from any other."""
        coarsest, *finer = z if isinstance(z, tuple) else (z,)
        y: Tensor = self.levels[0](self.middle(self.conv_in(self.project(coarsest))))
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


@dataclass(frozen=True)
class _Style:
    """How the blocks of both are made; `head_channels` None: one head."""

    normalize: Callable[[int], nn.GroupNorm] = norm
    head_channels: int | None = 32
    attends_middle: bool = False
    padding: Literal["both", "end"] = "both"

    def level(self, rank: int, channels: int, wide: int, blocks: int, attend: bool, dropout: float) -> list[nn.Module]:
        """Residual blocks, each followed by attention where the level attends."""
        parts: list[nn.Module] = []
        for block in range(blocks):
            parts.append(self._residual(rank, wide if block else channels, wide, dropout))
            if attend:
                parts.append(self._attention(wide))
        return parts

    def middle(self, rank: int, channels: int, attend: bool, dropout: float) -> nn.Sequential:
        """Two residual blocks around attention, where there is any."""
        first, last = (self._residual(rank, channels, channels, dropout) for _ in range(2))
        attends = attend or self.attends_middle
        return nn.Sequential(first, self._attention(channels), last) if attends else nn.Sequential(first, last)

    def _residual(self, rank: int, channels: int, wide: int, dropout: float) -> ResidualBlock:
        return ResidualBlock(rank, channels, wide, dropout=dropout, normalize=self.normalize)

    def _attention(self, channels: int) -> Attention:
        return Attention(channels, head_channels=self.head_channels or channels, normalize=self.normalize)


_STYLES = {"modkit": _Style(), "taming": _Style(norm_of_32, None, True, "end")}


def _chosen(owner: str, style: str, resampling: str, name: str, channels: int | None) -> _Style:
    if style not in _STYLES or resampling not in ("conv", "plain"):
        expected = "style 'modkit' or 'taming' and resampling 'conv' or 'plain'"
        raise ValueError(f"{owner} expects {expected}, got {style!r} and {resampling!r}")
    if channels is not None and channels < 1:
        raise ValueError(f"{owner} expects {name} of at least 1, got {channels}")
    return _STYLES[style]


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
