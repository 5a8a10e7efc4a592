r"""The residual block of ADM's U-Net, and how it embeds time.

    h = conv_1(resample(SiLU(norm_1(x))))
    y = skip(resample(x)) + conv_2(dropout(SiLU(g(h))))
    g(h) = (1 + s) norm_2(h) + m, (s, m) = W SiLU(e)      FiLM
    g(h) = norm_2(h + W SiLU(e))                          addition

Norms have 32 groups. Resampling repeats values or averages pairs, without weights.

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

from modkit.nn.blocks import Downsample, Upsample, broadcast, conv, zero_init
from modkit.ops.group_norm import normalize_silu

__all__ = ["AdmBlock", "Direction", "embed_time", "make_norm", "make_resampler"]

Direction = Literal["down", "up"]


class AdmBlock(nn.Module):
    """Two normalised convolutions around a skip, modulated by an embedding; see the module's equation.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        width: Width of the embedding that modulates the block, or None.
        film: Whether the embedding scales and shifts after the norm; otherwise it is added before.
        dropout: Probability of dropout before the last convolution.
        resampling: Whether to halve (`down`) or double (`up`) each size, or None.
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
        self.resample = make_resampler(rank, channels, resampling) if resampling else None
        self.norm_1 = make_norm(channels)
        self.conv_1 = conv(rank, channels, out_channels)
        self.modulation = nn.Linear(width, (1 + film) * out_channels) if width else None
        self.norm_2 = make_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero_init(conv(rank, out_channels, out_channels))
        self.skip = nn.Identity() if channels == out_channels else conv(rank, channels, out_channels, kernel=1)

    def forward(self, x: Tensor, embedding: Tensor, size: Sequence[int] = ()) -> Tensor:
        """Maps `b c h w` to `b out_channels h w`, modulated by `embedding`, `b e`; if upsampled, cropped to `size`."""
        h = normalize_silu(self.norm_1, x)
        if isinstance(self.resample, Upsample):
            h, x = self.resample(h, size), self.resample(x, size)
        elif self.resample is not None:
            h, x = self.resample(h), self.resample(x)
        h, film = self.conv_1(h), None
        if self.modulation is not None:
            modulation = self.modulation(F.silu(embedding))
            if self.film:
                scale, shift = modulation.chunk(2, dim=1)
                film = 1 + scale, shift
            else:
                h = h + broadcast(modulation, x)
        return self.skip(x) + self.conv_2(self.dropout(normalize_silu(self.norm_2, h, film)))


def embed_time(time: Tensor, width: int) -> Tensor:
    """Computes cosines, then sines, of `time`, `...`, at frequencies `10000^(-2 i / width)`.

    The result is `... width`, at least float32. The order of operations is the authors': at t = 999 another order
    differs by 1e-5 in float32.
    """
    time = time if time.dtype == torch.float64 else time.float()
    half = width // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=time.dtype, device=time.device) / half)
    angles = time[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


def make_resampler(rank: int, channels: int, direction: Direction) -> Downsample | Upsample:
    """Makes the layer that averages pairs or repeats values."""
    return (Downsample if direction == "down" else Upsample)(rank, channels, learned=False)


def make_norm(channels: int) -> nn.GroupNorm:
    """Makes a group normalisation with 32 groups and torch's default of 1e-5 added to the variance."""
    return nn.GroupNorm(32, channels)
