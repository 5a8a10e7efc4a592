r"""The residual block of ADM's U-Net, and how it embeds time.

    h = conv_1(resample(SiLU(norm_1(x))))
    y = skip(resample(x)) + conv_2(dropout(SiLU(g(h))))
    g(h) = (1 + s) norm_2(h) + m, (s, m) = W SiLU(e)      FiLM
    g(h) = norm_2(h + W SiLU(e))                          addition

Norms have 32 groups. Resampling is doubling by repetition or the mean of neighbours, without a weight of its own.

Shape letters: b batch, c channels, e width of the embedding, h w spatial (one, two or three sizes).

References:
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), section 3, https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import Downsample, Upsample, conv, zero_init

__all__ = ["AdmBlock", "Direction", "embedded_time", "plain", "wide_norm"]

Direction = Literal["down", "up"]


class AdmBlock(nn.Module):
    """Two normalised convolutions around a skip, modulated by an embedding; see the module's equation.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        width: Width of the embedding, or None: then nothing modulates it.
        film: Whether the embedding scales and shifts after the norm; if not, it is added before.
        dropout: Share of the values dropped before the last convolution.
        resampling: Whether it halves or doubles each size, or None.
    """

    def __init__(
        self,
        rank: int,
        channels: int,
        out_channels: int,
        *,
        width: int | None,
        film: bool,
        dropout: float = 0.0,
        resampling: Direction | None = None,
    ) -> None:
        super().__init__()
        self.film = film
        self.resample = plain(rank, channels, resampling) if resampling else None
        self.norm_1 = wide_norm(channels)
        self.conv_1 = conv(rank, channels, out_channels)
        self.modulation = nn.Linear(width, (1 + film) * out_channels) if width else None
        self.norm_2 = wide_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero_init(conv(rank, out_channels, out_channels))
        self.skip = nn.Identity() if channels == out_channels else conv(rank, channels, out_channels, kernel=1)

    def forward(self, x: Tensor, embedding: Tensor, size: Sequence[int] = ()) -> Tensor:
        """Maps `b c h w` to `out_channels` channels, modulated by `embedding`, `b e`; doubled, cropped to `size`."""
        h = F.silu(self.norm_1(x))
        if isinstance(self.resample, Upsample):
            h, x = self.resample(h, size), self.resample(x, size)
        elif self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h = self.conv_1(h)
        if self.modulation is None:
            h = self.norm_2(h)
        else:
            modulation = self.modulation(F.silu(embedding))
            modulation = modulation.reshape(*modulation.shape, *(1,) * (x.ndim - 2))
            if self.film:
                scale, shift = modulation.chunk(2, dim=1)
                h = self.norm_2(h) * (1 + scale) + shift
            else:
                h = self.norm_2(h + modulation)
        y: Tensor = self.skip(x) + self.conv_2(self.dropout(F.silu(h)))
        return y


def embedded_time(time: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of `time`, `b`, at frequencies `10000^(-2 i / width)`: `b width`, float32 at least.

    The order of operations is the authors': at t = 999 another one is 1e-5 away in float32.
    """
    time = time if time.dtype == torch.float64 else time.float()
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=time.dtype, device=time.device) / half)
    angles = time[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def plain(rank: int, channels: int, direction: Direction) -> Downsample | Upsample:
    """Halves by means, or doubles by repetition, without a weight."""
    return (Downsample if direction == "down" else Upsample)(rank, channels, learned=False)


def wide_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in 32 groups, with torch's own 1e-5 beside the variance."""
    return nn.GroupNorm(32, channels)
