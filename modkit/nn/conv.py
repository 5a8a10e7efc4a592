"""A convolutional encoder and its mirror, in the manner of latent diffusion's first stage.

    encoder: conv -> levels of residual blocks, halved between -> middle -> norm, SiLU, conv
    decoder: conv -> middle -> levels of residual blocks, doubled between -> norm, SiLU, conv, tanh where x is bounded

A level stands for each entry of `channels`, so two entries halve once (f2) and four halve three times (f8). Odd sizes
are rounded up on the way down and cropped on the way up: any size comes back. Signals, images and volumes share the
code.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), appendix G,
    https://arxiv.org/abs/2112.10752
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import Attention, attended
from modkit.nn.blocks import Downsample, ResidualBlock, Upsample, check_levels, conv, map_size, norm, pyramid
from modkit.types import Event, TensorType

__all__ = ["ConvDecoder", "ConvEncoder"]


class ConvEncoder(nn.Module):
    """Maps signals, images or volumes to features `h` of fewer positions, `b channels[-1] h w`.

    Args:
        x: Type of the data: continuous maps.
        channels: Channels of each level, finest first; the resolution is halved between levels.
        blocks: Residual blocks a level.
        attention: Resolutions (the largest side of a level's maps) at which to attend.
        dropout: Share of the values dropped in each residual block.

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
    ) -> None:
        super().__init__()
        check_levels("ConvEncoder", channels, blocks)
        sizes = pyramid(map_size("ConvEncoder", x), len(channels))
        attends = attended("ConvEncoder", sizes, attention)
        rank = len(sizes[0])
        self.h = TensorType((channels[-1], *sizes[-1]))
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

    def forward(self, x: Tensor) -> Tensor:
        """Encodes `x`, `b c h w` of any size."""
        y: Tensor = self.conv_in(x)
        for level in self.levels:
            y = level(y)
        y = self.conv_out(F.silu(self.norm_out(self.middle(y))))
        return y


class ConvDecoder(nn.Module):
    """Maps latents to maps of type `x` at more positions; bounded by tanh where x has a range.

    Args:
        z: Type of the latents: as many halvings below x as there are levels after the first.
        x: Type to emit.
        channels: Channels of each level, coarsest first; the resolution is doubled between levels.
        blocks: Residual blocks a level.
        attention: Resolutions (the largest side of a level's maps) at which to attend.
        dropout: Share of the values dropped in each residual block.

    Raises:
        ValueError: If `z` is a hierarchy or of another size, `z` or `x` is a vector or codes, there is no level or
            block, or a resolution is no level's.
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
        if isinstance(z, tuple):
            raise ValueError(f"ConvDecoder expects one latent, got a hierarchy of {len(z)}: {', '.join(map(str, z))}")
        check_levels("ConvDecoder", channels, blocks)
        sizes = pyramid(map_size("ConvDecoder", x), len(channels))[::-1]
        if map_size("ConvDecoder", z) != sizes[0]:
            raise ValueError(
                f"ConvDecoder with {len(channels)} levels expects z of size {sizes[0]} for x of size {sizes[-1]}, "
                f"got {z.shape[1:]}"
            )
        attends = attended("ConvDecoder", sizes, attention)
        rank = len(sizes[0])
        self.range = x.range
        self._crops = [tuple(2 * n - m for n, m in zip(low, high)) for low, high in zip(sizes, sizes[1:])]
        self.conv_in = conv(rank, z.shape[0], channels[0])
        self.middle = _middle(rank, channels[0], attends[0], dropout)
        self.levels = nn.ModuleList(
            nn.Sequential(*_level(rank, channels[max(level - 1, 0)], wide, blocks, attend, dropout))
            for level, (wide, attend) in enumerate(zip(channels, attends))
        )
        self.doublings = nn.ModuleList(Upsample(rank, wide) for wide in channels[:-1])
        self.norm_out = norm(channels[-1])
        self.conv_out = conv(rank, channels[-1], x.shape[0])

    def forward(self, z: Tensor) -> Tensor:
        """Decodes `z`, `b c h w`: to x's size from the latent's own size, in proportion from any other."""
        y: Tensor = self.levels[0](self.middle(self.conv_in(z)))
        for doubling, level, crop in zip(self.doublings, self.levels[1:], self._crops):
            y = level(doubling(y, [2 * n - odd for n, odd in zip(y.shape[2:], crop)]))
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
