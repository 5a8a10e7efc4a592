r"""What an NCSN++ is built of: residual blocks that resample and take a noise, and paths beside them.

    y = (skip(R x) + conv_1(drop(SiLU(N_1(conv_0(R SiLU(N_0(x))) + W SiLU(e)))))) / sqrt(2)
    N(h) = gamma(w) GN(h) + beta(w),   (gamma, beta) = W w + (1, 0);   a learned pair where there is no w

R halves, doubles, or is the identity. The sum of two paths is divided by sqrt(2), to keep its variance. Convolutions
start as the papers' do: uniform with variance s / mean(fan_in, fan_out), s = 1, or 1e-10 where a path starts at
nothing, yet with a gradient.

Shape letters: b batch, c channels, d widths of e and w, h w spatial (one, two or three sizes).

References:
    Score-Based Generative Modeling through Stochastic Differential Equations (Song et al., 2021), appendix H,
    https://arxiv.org/abs/2011.13456
    Tackling the Generative Learning Trilemma with Denoising Diffusion GANs (Xiao et al., 2022), appendix C,
    https://arxiv.org/abs/2112.07804
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.attention import Attention
from modkit.nn.blocks import conv, norm
from modkit.nn.fir import ConvHalve, Double, DoubleConv, Halve

__all__ = ["Block", "Halving", "Head", "Output", "Path", "Unit", "cropped", "scaled"]

Path: TypeAlias = Literal["none", "skip", "residual"]
"""What goes beside the blocks: nothing, the values themselves, or a path of convolutions that carries features."""

_TINY = 1e-6  # in the norms
_HALF = math.sqrt(0.5)
M = TypeVar("M", bound=nn.Module)


class Block(nn.Module):
    """A residual block; see the module's equation.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        width: Width of the embedding e that is added, or None.
        style: Width of the noise w that modulates its norms, or None.
        resample: Whether it halves or doubles each size.
        fir: Whether it resamples under the filter [1, 3, 3, 1].
        dropout: Share of the values dropped before the last convolution.
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
        self.conv_0 = scaled(conv(rank, channels, out_channels))
        self.embed = scaled(nn.Linear(width, out_channels)) if width else None
        self.norm_1 = _Norm(out_channels, style)
        self.dropout = nn.Dropout(dropout)
        self.conv_1 = scaled(conv(rank, out_channels, out_channels), 1e-10)
        self.resample = {"down": Halve, "up": Double}[resample](rank, fir=fir) if resample else nn.Identity()
        same = channels == out_channels and resample is None
        self.skip = nn.Identity() if same else scaled(conv(rank, channels, out_channels, kernel=1))

    def forward(self, x: Tensor, embedding: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        """Maps `b c h w` to `out_channels`, given e and w, `b d`, where it was built for them."""
        h = self.conv_0(self.resample(F.silu(self.norm_0(x, style))))
        if self.embed is not None and embedding is not None:
            h = h + _positions(self.embed(F.silu(embedding)), h)
        h = self.conv_1(self.dropout(F.silu(self.norm_1(h, style))))
        return _joined(self.skip(self.resample(x)), h)


class Unit(nn.Module):
    """A block and, where its level attends, self-attention of one head.

    Args:
        block: The block.
        channels: Channels of its output.
        attend: Whether it attends.
    """

    def __init__(self, block: Block, channels: int, attend: bool) -> None:
        super().__init__()
        self.block = block
        self.attend = Attention(channels, head_channels=channels) if attend else None
        if self.attend is not None:
            self.attend.norm.eps = _TINY

    def forward(self, x: Tensor, embedding: Tensor | None, style: Tensor | None) -> Tensor:
        """The block's output, `b c h w`, attended."""
        h: Tensor = self.block(x, embedding, style)
        return h if self.attend is None else self.attend(h) * _HALF


class Halving(nn.Module):
    """A halving block, and beside it the halved input, added to what comes out.

    Args:
        block: The block.
        rank: Number of spatial sizes.
        beside: Channels of what goes beside.
        channels: Channels of the block's output.
        path: `skip` adds the input, through a 1x1 convolution, to each halved h; `residual` halves it by a convolution
            and adds h, and the sum goes on both as h and beside it; `none` adds nothing.
        fir: Whether it resamples under the filter [1, 3, 3, 1].
        strided: Whether, without that filter, `residual` halves by a convolution of stride 2, else by means of two
            after a convolution.
    """

    def __init__(
        self, block: Block, rank: int, beside: int, channels: int, *, path: Path, fir: bool, strided: bool = True
    ) -> None:
        super().__init__()
        self.block = block
        self.path = path
        self.halve: nn.Module | None = None
        self.join: nn.Module | None = None
        if path == "residual" and (fir or strided):
            self.halve = ConvHalve(rank, beside, channels, fir=fir)
            scaled(self.halve.conv)
        elif path == "residual":
            self.halve = nn.Sequential(scaled(conv(rank, beside, channels)), Halve(rank, fir=False))
        elif path == "skip":
            self.halve = Halve(rank, fir=fir)
            self.join = scaled(conv(rank, beside, channels, kernel=1))

    def forward(
        self, x: Tensor, beside: Tensor, embedding: Tensor | None, style: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The block's output and what goes on beside it, both of half the size."""
        h: Tensor = self.block(x, embedding, style)
        if self.halve is None:
            return h, beside
        beside = self.halve(beside)
        if self.join is not None:
            return h + self.join(beside), beside
        beside = _joined(beside, h)
        return beside, beside


class Output(nn.Module):
    """A level's share in a path up to the output, coarsest level first.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the level.
        out_channels: Channels of the output.
        coarser: Channels of the path so far, or None at the coarsest level.
        path: `skip` sums outputs over the levels; `residual` carries features, which become the level's own.
        fir: Whether it resamples under the filter [1, 3, 3, 1].
    """

    def __init__(
        self, rank: int, channels: int, out_channels: int, coarser: int | None, *, path: Path, fir: bool
    ) -> None:
        super().__init__()
        self.path = path
        self.upsample: nn.Module | None = None
        self.head: Head | None = None
        if path == "skip":
            self.upsample = Double(rank, fir=fir) if coarser else None
            self.head = Head(rank, channels, out_channels)
        elif coarser:
            self.upsample = DoubleConv(rank, coarser, channels, fir=fir)
            scaled(self.upsample.conv)
        else:
            self.head = Head(rank, channels, channels, scale=1.0)

    def forward(self, h: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The level's features and the path, of the same size, from features and the coarser level's path, if any."""
        share: Tensor = h if self.head is None else self.head(h)
        if self.upsample is None:
            return h, share
        y = cropped(self.upsample(y), h)
        if self.path == "skip":
            return h, y + share
        h = _joined(y, h)
        return h, h


class Head(nn.Module):
    """Norm, SiLU and a convolution.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        scale: Of the convolution's first variance.
    """

    def __init__(self, rank: int, channels: int, out_channels: int, *, scale: float = 1e-10) -> None:
        super().__init__()
        self.norm = _Norm(channels, None)
        self.conv = scaled(conv(rank, channels, out_channels), scale)

    def forward(self, h: Tensor) -> Tensor:
        """Maps `b c h w` to `out_channels`."""
        y: Tensor = self.conv(F.silu(self.norm(h, None)))
        return y


class _Norm(nn.Module):
    """Group normalisation, whose gain and offset are made of w, or learned."""

    def __init__(self, channels: int, style: int | None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(norm(channels).num_groups, channels, eps=_TINY, affine=style is None)
        self.style = scaled(nn.Linear(style, 2 * channels)) if style else None
        if self.style is not None:
            nn.init.ones_(self.style.bias[:channels])

    def forward(self, x: Tensor, style: Tensor | None) -> Tensor:
        h: Tensor = self.norm(x)
        if self.style is None:
            return h
        if style is None:
            raise ValueError(f"Block expects a noise of width {self.style.in_features}, got None")
        gain, offset = _positions(self.style(style), h).chunk(2, dim=1)
        return gain * h + offset


def scaled(module: M, scale: float = 1.0) -> M:
    """The linear or convolutional module with weights of variance `scale / mean(fan_in, fan_out)` and no bias yet."""
    for name, parameter in module.named_parameters():
        if name == "bias":
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter, gain=math.sqrt(scale))
    return module


def cropped(x: Tensor, like: Tensor) -> Tensor:
    """`x` without what it has beyond the sizes of `like`."""
    for dim, length in enumerate(like.shape[2:], start=2):
        x = x.narrow(dim, 0, length)
    return x


def _positions(e: Tensor, like: Tensor) -> Tensor:
    """`e`, `b d`, ready to meet `like`, `b d h w`."""
    return e.reshape(*e.shape, *[1] * (like.ndim - 2))


def _joined(a: Tensor, b: Tensor) -> Tensor:
    return (a + b) * _HALF
