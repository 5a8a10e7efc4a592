r"""Blocks of convolutional networks over signals, images and volumes.

    h = conv_1(SiLU(norm_1(x)))
    y = skip(x) + conv_2(dropout(SiLU((1 + s) norm_2(h) + m)))        (s, m) = W SiLU(e)

The residual block of DDPM, modulated by an embedding e as in ADM (FiLM) where there is one. Its last convolution
starts at zero, so that a new block is the identity (or its 1-wide skip). The rank (1, 2 or 3 spatial sizes) is told to
each block; a size n is halved to ceil(n / 2) and doubled to 2 n, cropped where an odd size is to come back. How a block
normalises is told to it as well.

Shape letters: b batch, c channels, d embedding width, h w spatial (one, two or three sizes).

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.types import TensorType

__all__ = [
    "Downsample",
    "ResidualBlock",
    "Upsample",
    "check_levels",
    "conv",
    "map_size",
    "norm",
    "norm_of_32",
    "pyramid",
    "zero",
]


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in as many groups as divide `channels`, at most 32 and of at least 4 channels (EDM's rule).

    A group of one channel would lose that channel's mean, and on a 1x1 map everything.
    """
    return nn.GroupNorm(max(n for n in range(1, 33) if channels % n == 0 and (n == 1 or channels // n >= 4)), channels)


def norm_of_32(channels: int) -> nn.GroupNorm:
    """Group normalisation as DDPM's code and its successors have it: 32 groups, and 1e-6 beside the variance."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two normalised convolutions around a skip; see the module's equation.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        width: Width of the embedding that modulates it, or None.
        dropout: Share of the values dropped before the last convolution.
        normalize: Makes the normalisation of so many channels.
    """

    def __init__(
        self,
        rank: int,
        channels: int,
        out_channels: int,
        *,
        width: int | None = None,
        dropout: float = 0.0,
        normalize: Callable[[int], nn.GroupNorm] = norm,
    ) -> None:
        super().__init__()
        self.norm_1 = normalize(channels)
        self.conv_1 = conv(rank, channels, out_channels)
        self.film = nn.Linear(width, 2 * out_channels) if width else None
        self.norm_2 = normalize(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero(conv(rank, out_channels, out_channels))
        self.skip = nn.Identity() if channels == out_channels else conv(rank, channels, out_channels, kernel=1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Maps `b c h w` to the same size with `out_channels`, modulated by `embedding`, `b d`.

        Raises:
            ValueError: If it was built to be modulated and the embedding is missing.
        """
        h = self.norm_2(self.conv_1(F.silu(self.norm_1(x))))
        if self.film is not None:
            if embedding is None:
                raise ValueError(f"ResidualBlock expects an embedding of width {self.film.in_features}, got None")
            film = self.film(F.silu(embedding))
            scale, shift = film.reshape(*film.shape, *(1,) * (x.ndim - 2)).chunk(2, dim=1)
            h = h * (1 + scale) + shift
        y: Tensor = self.skip(x) + self.conv_2(self.dropout(F.silu(h)))
        return y


class Downsample(nn.Module):
    """Halves each size, n to ceil(n / 2), by a convolution of stride 2.

    Args:
        rank: Number of spatial sizes.
        channels: Channels, kept.
        padding: Zeros at `both` ends, or at the `end` alone where n is even, so that the window of position i starts
            at 2 i (TensorFlow's `SAME`, which DDPM and latent diffusion keep).
        learned: Whether a convolution halves, or the mean of windows 2 wide.
    """

    def __init__(
        self, rank: int, channels: int, *, padding: Literal["both", "end"] = "both", learned: bool = True
    ) -> None:
        super().__init__()
        self.padding = padding if learned else "both"
        if learned:
            self.conv = conv(rank, channels, channels, stride=2, padding=1 if padding == "both" else 0)
        else:
            self.conv = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)[rank - 1](2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to half the size."""
        if self.padding == "end":
            x = F.pad(x, [width for length in reversed(x.shape[2:]) for width in (length % 2, 1)])
        y: Tensor = self.conv(x)
        return y


class Upsample(nn.Module):
    """Doubles each size by repetition, crops and convolves.

    Args:
        rank: Number of spatial sizes.
        channels: Channels, kept.
        learned: Whether it convolves.
    """

    def __init__(self, rank: int, channels: int, *, learned: bool = True) -> None:
        super().__init__()
        self.conv = conv(rank, channels, channels) if learned else nn.Identity()

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Maps `b c h w` to `size`, each 2 n or 2 n - 1 of an input's n."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        for dim, length in enumerate(size, start=2):
            x = x.narrow(dim, 0, length)
        y: Tensor = self.conv(x)
        return y


def conv(
    rank: int, channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1, padding: int | None = None
) -> nn.Module:
    """A convolution over `rank` spatial sizes that keeps them (divides them by `stride`, rounding up).

    It does so under the padding that is taken where none is given.
    """
    convolutions: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
    padding = kernel // 2 if padding is None else padding
    return convolutions[rank](channels, out_channels, kernel, stride=stride, padding=padding)


def zero(module: nn.Module) -> nn.Module:
    """The module with its parameters set to zero."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def map_size(owner: str, x: TensorType) -> tuple[int, ...]:
    """The spatial size of a continuous map.

    Raises:
        ValueError: If `x` is codes, a vector, or has more than three spatial sizes; names `owner`.
    """
    if x.classes is not None or not 2 <= len(x.shape) <= 4:
        raise ValueError(f"{owner} expects continuous maps of shape (c, t), (c, h, w) or (c, t, h, w), got {x}")
    return x.shape[1:]


def check_levels(owner: str, channels: Sequence[int], blocks: int) -> None:
    """Checks the levels of a pyramid.

    Raises:
        ValueError: If there is no level, a level has no channel or no block; names `owner`.
    """
    if not channels or min(channels) < 1 or blocks < 1:
        raise ValueError(f"{owner} expects channels and blocks of at least 1, got {list(channels)} and {blocks}")


def pyramid(size: Sequence[int], num: int) -> list[tuple[int, ...]]:
    """The sizes of `num` levels, finest first, each half of the one before, rounded up."""
    sizes = [tuple(size)]
    while len(sizes) < num:
        sizes.append(tuple(-(-length // 2) for length in sizes[-1]))
    return sizes
