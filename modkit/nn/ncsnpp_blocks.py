r"""The blocks of NCSN++: residual blocks that resample and are modulated by noise, and the progressive paths.

    y = (skip(R x) + conv_1(drop(SiLU(N_1(conv_0(R SiLU(N_0(x))) + W SiLU(e)))))) / sqrt(2)
    N(h) = gamma(w) GN(h) + beta(w),   (gamma, beta) = W w + (1, 0);   a learned pair if there is no w

R downsamples, upsamples, or is the identity. The sum of two paths is divided by sqrt(2) to keep its variance.
Convolutions are initialised as in the papers: uniform with variance s / mean(fan_in, fan_out), where s = 1, or 1e-10
for a path that starts near zero but still receives gradients.

Shape letters: b batch, c channels, d widths of e and w, h w spatial (one, two or three sizes).

References:
    Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), appendix H,
    https://arxiv.org/abs/2011.13456
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), appendix C,
    https://arxiv.org/abs/2112.07804
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import Attention
from modkit.nn.blocks import broadcast, conv, crop, group_norm, init_xavier
from modkit.nn.fir import BOX, SMOOTH, FIRDownsample, FIRUpsample
from modkit.ops.group_norm import normalize_silu

__all__ = ["Block", "DownsampleBlock", "Head", "Output", "Path", "Unit"]

Path: TypeAlias = Literal["none", "skip", "residual"]
"""The path parallel to the blocks: none, the values themselves, or convolutions that carry features."""

_TINY = 1e-6  # in the norms
_HALF = math.sqrt(0.5)


class Block(nn.Module):
    """A residual block; see the module's equation.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        width: Width of the embedding e that is added, or None.
        style: Width of the mapped noise w that modulates the norms, or None.
        resample: Whether to downsample or upsample each size, or None.
        fir: Whether to resample with the filter [1, 3, 3, 1].
        dropout: Probability of dropout before the last convolution.

    Examples:
        >>> import torch
        >>> Block(2, 4, 8, width=6, resample="down")(torch.zeros(1, 4, 8, 8), torch.zeros(1, 6)).shape
        torch.Size([1, 8, 4, 4])
    """

    def __init__(
        self,
        rank: int,
        channels: int,
        out_channels: int,
        *,
        width: int | None = None,
        style: int | None = None,
        resample: Literal["down", "up"] | None = None,
        fir: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm_0 = _Norm(channels, style)
        self.conv_0 = init_xavier(conv(rank, channels, out_channels))
        self.embed = init_xavier(nn.Linear(width, out_channels)) if width else None
        self.norm_1 = _Norm(out_channels, style)
        self.dropout = nn.Dropout(dropout)
        self.conv_1 = init_xavier(conv(rank, out_channels, out_channels), 1e-10)
        self.resample = (
            {"down": FIRDownsample, "up": FIRUpsample}[resample](rank, taps=SMOOTH if fir else BOX)
            if resample
            else nn.Identity()
        )
        same = channels == out_channels and resample is None
        self.skip = nn.Identity() if same else init_xavier(conv(rank, channels, out_channels, kernel=1))

    def forward(self, x: Tensor, embedding: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        """Maps `b c h w` to `b out_channels h w`, given e and w, `b d`, if the block was built for them."""
        h = self.conv_0(self.resample(self.norm_0(x, style)))
        if self.embed is not None and embedding is not None:
            h = h + broadcast(self.embed(F.silu(embedding)), h)
        h = self.conv_1(self.dropout(self.norm_1(h, style)))
        return _join(self.skip(self.resample(x)), h)


class Unit(nn.Module):
    """A residual block, followed by self-attention with one head if its level attends.

    Args:
        block: The block.
        channels: Channels of the block's output.
        attend: Whether to attend.
    """

    def __init__(self, block: Block, channels: int, attend: bool) -> None:
        super().__init__()
        self.block = block
        self.attend = Attention(channels, head_channels=channels) if attend else None
        if self.attend is not None:
            self.attend.norm.eps = _TINY

    def forward(self, x: Tensor, embedding: Tensor | None, style: Tensor | None) -> Tensor:
        """Applies the block and the attention, `b c h w`."""
        h: Tensor = self.block(x, embedding, style)
        return h if self.attend is None else self.attend(h) * _HALF


class DownsampleBlock(nn.Module):
    """A downsampling block, to whose output the downsampled input of the network is added.

    Args:
        block: The block.
        side: Channels of the side path, parallel to the blocks.
        channels: Channels of the block's output.
        path: `skip` downsamples the input and adds it to h through a 1x1 convolution. `residual` downsamples it by a
            convolution and adds h; the sum is both the new h and the new path. `none` adds nothing.
        strided: Whether `residual` without that filter uses a convolution of stride 2; otherwise it convolves and then
            averages pairs.
    """

    def __init__(
        self, block: Block, rank: int, side: int, channels: int, *, path: Path, fir: bool, strided: bool = True
    ) -> None:
        super().__init__()
        self.block = block
        self.path = path
        self.halve: nn.Module | None = None
        self.join: nn.Module | None = None
        if path == "residual" and (fir or strided):
            self.halve = init_xavier(FIRDownsample(rank, (side, channels), taps=SMOOTH if fir else BOX))
        elif path == "residual":
            self.halve = nn.Sequential(init_xavier(conv(rank, side, channels)), FIRDownsample(rank, taps=BOX))
        elif path == "skip":
            self.halve = FIRDownsample(rank, taps=SMOOTH if fir else BOX)
            self.join = init_xavier(conv(rank, side, channels, kernel=1))

    def forward(self, x: Tensor, side: Tensor, embedding: Tensor | None, style: Tensor | None) -> tuple[Tensor, Tensor]:
        """Computes the output and the continued path, both of half the size."""
        h: Tensor = self.block(x, embedding, style)
        if self.halve is None:
            return h, side
        side = self.halve(side)
        if self.join is not None:
            return h + self.join(side), side
        side = _join(side, h)
        return side, side


class Output(nn.Module):
    """A level's contribution to the progressive output, coarsest level first.

    Args:
        channels: Channels of the level.
        out_channels: Channels of the output.
        coarser: Channels of the path so far, or None at the coarsest level.
        path: `skip` sums outputs over the levels; `residual` carries features, which replace those of the level.
    """

    def __init__(
        self, rank: int, channels: int, out_channels: int, coarser: int | None, *, path: Path, fir: bool
    ) -> None:
        super().__init__()
        self.path = path
        self.upsample: nn.Module | None = None
        self.head: Head | None = None
        if path == "skip":
            self.upsample = FIRUpsample(rank, taps=SMOOTH if fir else BOX) if coarser else None
            self.head = Head(rank, channels, out_channels)
        elif coarser:
            self.upsample = init_xavier(FIRUpsample(rank, (coarser, channels), taps=SMOOTH if fir else BOX))
        else:
            self.head = Head(rank, channels, channels, scale=1.0)

    def forward(self, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the level's features and path, given the features `h` and the coarser level's path `y`."""
        share: Tensor = h if self.head is None else self.head(h)
        if self.upsample is None:
            return h, share
        y = crop(self.upsample(y), h.shape[2:])
        if self.path == "skip":
            return h, y + share
        h = _join(y, h)
        return h, h


class Head(nn.Module):
    """Norm, SiLU and a convolution, whose weights are initialised with a variance scaled by `scale`."""

    def __init__(self, rank: int, channels: int, out_channels: int, *, scale: float = 1e-10) -> None:
        super().__init__()
        self.norm = _Norm(channels, None)
        self.conv = init_xavier(conv(rank, channels, out_channels), scale)

    def forward(self, h: Tensor) -> Tensor:
        """Maps `b c h w` to `b out_channels h w`."""
        return self.conv(self.norm(h, None))


class _Norm(nn.Module):
    """Group normalisation and SiLU; gain and offset of the norm are computed from w, or learned."""

    def __init__(self, channels: int, style: int | None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(group_norm(channels).num_groups, channels, eps=_TINY, affine=style is None)
        self.style = init_xavier(nn.Linear(style, 2 * channels)) if style else None
        if self.style is not None:
            nn.init.ones_(self.style.bias[:channels])

    def forward(self, x: Tensor, style: Tensor | None) -> Tensor:
        if self.style is None:
            return normalize_silu(self.norm, x)
        if style is None:
            raise ValueError(f"Block expects a noise of width {self.style.in_features}, got None")
        gain, offset = self.style(style).chunk(2, dim=1)
        return normalize_silu(self.norm, x, (gain, offset))


def _join(a: Tensor, b: Tensor) -> Tensor:
    return (a + b) * _HALF
