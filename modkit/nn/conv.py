"""A convolutional encoder and the matching decoder, similar to the first stage of latent diffusion.

    encoder: conv -> levels of residual blocks, downsampling between -> middle -> norm, SiLU, conv
    decoder: conv -> middle -> levels of residual blocks, upsampling between -> norm, SiLU, conv, tanh if x is bounded

There is one level for each entry of `channels`, so two entries downsample once (f2) and four downsample three times
(f8). Odd sizes are rounded up on the way down and cropped on the way up, so every size is restored. The same code
serves signals, images and volumes.

A hierarchy has maps at several levels, coarsest first. The encoder emits each finer map at the end of its level, before
downsampling, through a norm, SiLU and a separate convolution. The decoder joins it as further channels at the start of
the level. The coarsest map thus has the largest receptive field, and finer maps add details.

The `taming` style reproduces the first stages of taming-transformers and of latent diffusion, whose decoder has one
more block per level than the encoder: norms with 32 groups, attention with one head and always in the middle, and
downsampling windows that start at every second position. The encoder emits `out_channels`; the decoder begins with a
1x1 convolution to `in_channels`.

Conditions without positions modulate the residual blocks, as in a U-Net (FiLM). A map is joined to x in the encoder
and, in the decoder, to the input of the last level, at the size of x, since the maps before it are too coarse to hold
it.

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

from modkit.nn.attention import Attention, find_attention_levels
from modkit.nn.blocks import (
    Downsample,
    ResidualBlock,
    Upsample,
    check_levels,
    conv,
    get_map_size,
    group_norm,
    group_norm_32,
    make_pyramid,
)
from modkit.nn.embeddings import CondEmbedding, MapJoin
from modkit.ops.group_norm import normalize_silu
from modkit.types import Cond, CondType, Event, PositiveInt, TensorType, Value, checked, split_levels

__all__ = ["ConvDecoder", "ConvEncoder"]


@checked
class ConvEncoder(nn.Module):
    """Maps signals, images or volumes to features `h` at fewer positions, `b channels[-1] h w`, or to a hierarchy.

    Args:
        x: Type of the data: continuous maps.
        cond: Type of the conditions, by default none; tokens are not supported.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        blocks: Residual blocks per level.
        attention: Resolutions (the largest side of a level's maps) at which to attend.
        dropout: Probability of dropout in each residual block.
        levels: Resolutions at which to emit a map, for example `[8, 4]`: two or more, including that of the last level.
            By default only the last level emits one.
        out_channels: Channels of the last level's emitted map; by default the last of `channels`.
        resampling: Whether to downsample by a convolution (`conv`) or by averaging neighbours (`plain`).
        style: How blocks normalise, attend and downsample: `modkit`, or `taming` (see above).

    Raises:
        ValueError: If `x` is a vector or codes, `cond` has a context, there is no level or block, a resolution belongs
            to no level, a choice is unknown, or a number of channels does not suit the style.

    Examples:
        >>> encoder = ConvEncoder(TensorType((3, 16, 16)), channels=[4, 8])
        >>> str(encoder.h)
        '8×8×8 unbounded'
        >>> encoder(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 8, 8, 8])
        >>> hierarchy = ConvEncoder(TensorType((3, 16, 16)), channels=[4, 4, 8], levels=[8, 4])
        >>> [tuple(h.shape) for h in hierarchy(torch.zeros(2, 3, 16, 16))]
        [(2, 8, 4, 4), (2, 4, 8, 8)]
    """

    h: Event
    conditional = True

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        channels: list[PositiveInt] = [32, 64],  # noqa: B006
        blocks: PositiveInt = 1,
        attention: list[int] = [],  # noqa: B006
        dropout: float = 0.0,
        levels: list[int] | None = None,
        out_channels: PositiveInt | None = None,
        resampling: Literal["conv", "plain"] = "conv",
        style: Literal["modkit", "taming"] = "modkit",
    ) -> None:
        super().__init__()
        check_levels("ConvEncoder", channels)
        made = _STYLES[style]
        sizes = make_pyramid(get_map_size("ConvEncoder", x), len(channels))
        attends = find_attention_levels("ConvEncoder", sizes, attention)
        rank = len(sizes[0])
        emits = _find_emitting(sizes, levels) if levels is not None else [False] * len(sizes)
        emitted = channels[-1] if out_channels is None else out_channels
        coarsest = TensorType((emitted, *sizes[-1]))
        finer = [TensorType((wide, *size)) for wide, size, emit in zip(channels, sizes, emits) if emit][:-1]
        self.h = (coarsest, *reversed(finer)) if finer else coarsest
        self.embedding = _embed("ConvEncoder", cond, channels[0])
        width = self.embedding.width if self.embedding.embeds else None
        self.join = MapJoin(x, cond.concat, channels[0])
        self.conv_in = conv(rank, self.join.channels, channels[0])
        self.levels = nn.ModuleList()
        for level, (wide, attend) in enumerate(zip(channels, attends)):
            parts = made.make_level(rank, channels[max(level - 1, 0)], wide, blocks, attend, dropout, width)
            if level + 1 < len(channels):
                parts.append(Downsample(rank, wide, padding=made.padding, learned=resampling == "conv"))
            self.levels.append(nn.Sequential(*parts))
        self.middle = made.make_middle(rank, channels[-1], attends[-1], dropout, width)
        self.norm_out = made.normalize(channels[-1])
        self.conv_out = conv(rank, channels[-1], emitted)
        self.heads = nn.ModuleDict(
            {str(level): _make_head(rank, channels[level]) for level, emit in enumerate(emits[:-1]) if emit}
        )

    @property
    def units(self) -> list[nn.Module]:
        """The middle and the modules of all levels."""
        return [*(part for level in self.levels for part in level.children()), self.middle]

    def forward(self, x: Tensor, cond: Cond = Cond()) -> Value:
        """Encodes `x`, `b c h w` of any size; a hierarchy is returned coarsest first."""
        embedding = self.embedding(cond, x) if self.embedding.embeds else None
        y: Tensor = self.conv_in(self.join(x, cond.concat))
        maps: list[Tensor] = []
        for index, level in enumerate(self.levels):
            for part in level.children():
                if isinstance(part, Downsample) and str(index) in self.heads:
                    maps.append(self.heads[str(index)](y))
                y = _run(part, y, embedding)
        y = self.conv_out(normalize_silu(self.norm_out, self.middle(y, embedding)))
        return (y, *reversed(maps)) if maps else y


@checked
class ConvDecoder(nn.Module):
    """Maps latents to maps of type `x` at more positions; a tanh bounds the output if x has a range.

    Args:
        z: Type of the latents, or of a hierarchy of them. The coarsest has the size of x, halved once for each level
            after the first; each finer one has the size of a later level, in the order of the levels.
        x: Type of the output.
        cond: Type of the conditions, by default none; tokens are not supported.
        channels: Channels of each level, coarsest first; the resolution is doubled between levels.
        blocks: Residual blocks per level.
        attention: Resolutions (the largest side of a level's maps) at which to attend.
        dropout: Probability of dropout in each residual block.
        in_channels: Channels to which a 1x1 convolution first maps the coarsest latent; by default there is no such
            layer.
        resampling: Whether a convolution follows each upsampling (`conv`) or not (`plain`).
        style: How blocks normalise and attend: `modkit`, or `taming` (see above).

    Raises:
        ValueError: If `z` has another size, `z` or `x` is a vector or codes, `cond` has a context, there is no level or
            block, a resolution belongs to no level, a choice is unknown, or a number of channels does not suit the
            style.

    Examples:
        >>> x = TensorType((3, 15, 15), range=(-1.0, 1.0))
        >>> decoder = ConvDecoder(TensorType((4, 8, 8)), x, channels=[8, 4])
        >>> decoder(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 3, 15, 15])
    """

    last_layer: str | None = "conv_out.weight"
    conditional = True

    def __init__(
        self,
        z: Event,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        channels: list[PositiveInt] = [64, 32],  # noqa: B006
        blocks: PositiveInt = 1,
        attention: list[int] = [],  # noqa: B006
        dropout: float = 0.0,
        in_channels: PositiveInt | None = None,
        resampling: Literal["conv", "plain"] = "conv",
        style: Literal["modkit", "taming"] = "modkit",
    ) -> None:
        super().__init__()
        coarsest, *finer = split_levels(z)
        check_levels("ConvDecoder", channels)
        made = _STYLES[style]
        sizes = make_pyramid(get_map_size("ConvDecoder", x), len(channels))[::-1]
        if get_map_size("ConvDecoder", coarsest) != sizes[0]:
            raise ValueError(
                f"ConvDecoder with {len(channels)} levels expects z of size {sizes[0]} for x of size {sizes[-1]}, "
                f"got {coarsest.shape[1:]}"
            )
        joined = _find_joins(sizes, finer)
        attends = find_attention_levels("ConvDecoder", sizes, attention)
        rank = len(sizes[0])
        self.range = x.range
        self._crops = [tuple(2 * n - m for n, m in zip(low, high)) for low, high in zip(sizes, sizes[1:])]
        self.project = conv(rank, coarsest.shape[0], in_channels, kernel=1) if in_channels else nn.Identity()
        self.conv_in = conv(rank, in_channels or coarsest.shape[0], channels[0])
        self.embedding = _embed("ConvDecoder", cond, channels[-1])
        width = self.embedding.width if self.embedding.embeds else None
        self.middle = made.make_middle(rank, channels[0], attends[0], dropout, width)
        self.levels = nn.ModuleList(
            _Blocks(*made.make_level(rank, channels[max(level - 1, 0)], wide, blocks, attend, dropout, width))
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
        joining = channels[-2] if len(channels) > 1 else channels[0]
        self.join = MapJoin(TensorType((joining, *sizes[-1])), cond.concat, joining)
        self.conv_join = conv(rank, self.join.channels, joining) if cond.concat is not None else nn.Identity()
        self.norm_out = made.normalize(channels[-1])
        self.conv_out = conv(rank, channels[-1], x.shape[0])

    @property
    def units(self) -> list[nn.Module]:
        """The middle and the modules of all levels."""
        return [*(part for level in self.levels for part in level.children()), self.middle]

    def forward(self, z: Value, cond: Cond = Cond()) -> Tensor:
        """Decodes `z`, `b c h w`, to the size of x, or in proportion if `z` has another size than its type."""
        coarsest, *finer = z if isinstance(z, tuple) else (z,)
        embedding = self.embedding(cond, coarsest) if self.embedding.embeds else None
        y: Tensor = self.conv_in(self.project(coarsest))
        last = len(self.doublings)
        y = self.middle(y if last else self.conv_join(self.join(y, cond.concat)), embedding)
        y = self.levels[0](y, embedding)
        for index, (doubling, crop) in enumerate(zip(self.doublings, self._crops), start=1):
            y = doubling(y, [2 * n - odd for n, odd in zip(y.shape[2:], crop)])
            if str(index) in self.joins:
                y = self.joins[str(index)](torch.cat([y, finer.pop(0)], dim=1))
            if index == last:
                y = self.conv_join(self.join(y, cond.concat))
            y = self.levels[index](y, embedding)
        y = self.conv_out(normalize_silu(self.norm_out, y))
        if self.range is not None:
            low, high = self.range
            y = low + (high - low) * (torch.tanh(y) + 1) / 2
        return y


class _Blocks(nn.Sequential):
    """Blocks in sequence, the residual ones modulated by an embedding."""

    def forward(self, input: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Maps `b c h w`, modulated by `embedding`, `b d`, if there is one."""
        for part in self:
            input = _run(part, input, embedding)
        return input


def _run(part: nn.Module, y: Tensor, embedding: Tensor | None) -> Tensor:
    """Runs a residual block, which an embedding may modulate, or another module."""
    y = part(y, embedding) if isinstance(part, ResidualBlock) else part(y)
    return y


def _embed(owner: str, cond: CondType, channels: int) -> CondEmbedding:
    """Creates the embedding that modulates the blocks, four times as wide as the finest maps, as in U-Nets."""
    if cond.context is not None:
        raise ValueError(f"{owner} expects no context (it does not attend), got {cond.context}")
    return CondEmbedding(cond, 4 * channels)


@dataclass(frozen=True)
class _Style:
    """How the blocks of the encoder and the decoder are built; without `head_channels` attention has one head."""

    normalize: Callable[[int], nn.GroupNorm] = group_norm
    head_channels: int | None = 32
    attends_middle: bool = False
    padding: Literal["both", "end"] = "both"

    def make_level(
        self, rank: int, channels: int, wide: int, blocks: int, attend: bool, dropout: float, width: int | None
    ) -> list[nn.Module]:
        """Creates the residual blocks of a level, each followed by attention if the level attends.

        `width` is that of the embedding that modulates them, None if there is none.
        """
        parts: list[nn.Module] = []
        for block in range(blocks):
            parts.append(self._make_residual(rank, wide if block else channels, wide, dropout, width))
            if attend:
                parts.append(self._make_attention(wide))
        return parts

    def make_middle(self, rank: int, channels: int, attend: bool, dropout: float, width: int | None) -> _Blocks:
        """Creates two residual blocks with attention between them, if there is any."""
        first, last = (self._make_residual(rank, channels, channels, dropout, width) for _ in range(2))
        attends = attend or self.attends_middle
        return _Blocks(first, self._make_attention(channels), last) if attends else _Blocks(first, last)

    def _make_residual(self, rank: int, channels: int, wide: int, dropout: float, width: int | None) -> ResidualBlock:
        return ResidualBlock(rank, channels, wide, width=width, dropout=dropout, normalize=self.normalize)

    def _make_attention(self, channels: int) -> Attention:
        return Attention(channels, head_channels=self.head_channels or channels, normalize=self.normalize)


_STYLES = {"modkit": _Style(), "taming": _Style(group_norm_32, None, True, "end")}


def _make_head(rank: int, channels: int) -> nn.Sequential:
    return nn.Sequential(group_norm(channels), nn.SiLU(), conv(rank, channels, channels))


def _find_emitting(sizes: Sequence[Sequence[int]], resolutions: Sequence[int]) -> list[bool]:
    """Determines which levels, finest first, emit a map."""
    sides = [max(size) for size in sizes]
    emits = [side in resolutions for side in sides]
    if len(resolutions) < 2 or sum(emits) != len(resolutions) or not emits[-1]:
        raise ValueError(
            f"ConvEncoder expects levels at two or more of the resolutions {sides}, including the last, "
            f"got {list(resolutions)}"
        )
    return emits


def _find_joins(sizes: list[tuple[int, ...]], finer: Sequence[TensorType]) -> dict[int, TensorType]:
    """Finds the level, counted from the coarsest, at which each latent after the coarsest is joined."""
    joined: dict[int, TensorType] = {}
    first = 1
    for type in finer:
        size = get_map_size("ConvDecoder", type)
        if size not in sizes[first:]:
            raise ValueError(
                f"ConvDecoder expects each finer map at a later one of the sizes {list(sizes)}, got {type}"
            )
        first = sizes.index(size, first) + 1
        joined[first - 1] = type
    return joined
