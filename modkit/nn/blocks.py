r"""Blocks of convolutional networks over signals, images and volumes.

    h = conv_1(SiLU(norm_1(x)))
    y = skip(x) + conv_2(dropout(SiLU((1 + s) norm_2(h) + m)))        (s, m) = W SiLU(e)

This is DDPM's residual block, modulated by an embedding e as in ADM (FiLM) if there is one. Its last convolution starts
at zero, so that a new block is the identity, or its 1-wide skip convolution. Each block is built for a rank: one, two
or three spatial sizes. Downsampling turns a size n into ceil(n / 2), upsampling turns it into 2 n, which is then
cropped to restore odd sizes.

Shape letters: b batch, c channels, d embedding width, h w spatial (one, two or three sizes).

References:
    Denoising Diffusion Probabilistic Models (Ho et al., 2020), https://arxiv.org/abs/2006.11239
    Diffusion Models Beat GANs on Image Synthesis (Dhariwal & Nichol, 2021), https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.ops.group_norm import normalize_silu
from modkit.types import TensorType

__all__ = [
    "Downsample",
    "Level",
    "ResidualBlock",
    "Upsample",
    "broadcast",
    "check_levels",
    "choose_levels",
    "conv",
    "crop",
    "get_map_size",
    "group_norm",
    "group_norm_32",
    "init_xavier",
    "make_pyramid",
    "zero_init",
]

M = TypeVar("M", bound=nn.Module)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with the most groups of at least 4 channels, up to 32, that divide `channels` (EDM's rule).

    A group of one channel would lose that channel's mean and, on a 1x1 map, all information.

    Examples:
        >>> group_norm(64).num_groups, group_norm(12).num_groups
        (16, 3)
    """
    return nn.GroupNorm(max(n for n in range(1, 33) if channels % n == 0 and (n == 1 or channels // n >= 4)), channels)


def group_norm_32(channels: int) -> nn.GroupNorm:
    """Group normalisation as in DDPM's code and its successors: 32 groups, and 1e-6 added to the variance."""
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    """Two normalised convolutions with a skip connection; see the module's equation.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        width: Width of the embedding that modulates the block, or None.
        dropout: Probability of dropout before the last convolution.
        normalize: Creates the normalisation layer for a number of channels.

    Examples:
        >>> import torch
        >>> ResidualBlock(2, 8, 16, width=4)(torch.zeros(1, 8, 5, 5), torch.zeros(1, 4)).shape
        torch.Size([1, 16, 5, 5])
    """

    def __init__(
        self,
        rank: int,
        channels: int,
        out_channels: int,
        *,
        width: int | None = None,
        dropout: float = 0.0,
        normalize: Callable[[int], nn.GroupNorm] = group_norm,
    ) -> None:
        super().__init__()
        self.norm_1 = normalize(channels)
        self.conv_1 = conv(rank, channels, out_channels)
        self.film = nn.Linear(width, 2 * out_channels) if width else None
        self.norm_2 = normalize(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv_2 = zero_init(conv(rank, out_channels, out_channels))
        self.skip = nn.Identity() if channels == out_channels else conv(rank, channels, out_channels, kernel=1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Maps `b c h w` to `b out_channels h w`, modulated by `embedding`, `b d`.

        Raises:
            ValueError: If the block was built for an embedding and none is given.
        """
        h, modulation = self.conv_1(normalize_silu(self.norm_1, x)), None
        if self.film is not None:
            if embedding is None:
                raise ValueError(f"ResidualBlock expects an embedding of width {self.film.in_features}, got None")
            scale, shift = self.film(F.silu(embedding)).chunk(2, dim=1)
            modulation = 1 + scale, shift
        return self.skip(x) + self.conv_2(self.dropout(normalize_silu(self.norm_2, h, modulation)))


class Downsample(nn.Module):
    """Halves each size, n to ceil(n / 2), by a convolution of stride 2 or by averaging.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input and the output.
        padding: Where zeros are added: at `both` ends or, for an even n, only at the `end`, so that the window of
            position i starts at 2 i (TensorFlow's `SAME`, which DDPM and latent diffusion use).
        learned: Whether to use a convolution; otherwise windows 2 wide are averaged.

    Examples:
        >>> import torch
        >>> Downsample(2, 4)(torch.zeros(1, 4, 7, 8)).shape
        torch.Size([1, 4, 4, 4])
    """

    def __init__(
        self, rank: int, channels: int, *, padding: Literal["both", "end"] = "both", learned: bool = True
    ) -> None:
        super().__init__()
        self.padding = padding if learned else "both"
        if learned:
            self.conv = conv(rank, channels, channels, stride=2, padding=1 if padding == "both" else 0)
        else:
            self.conv = _Average(rank)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to half its size."""
        if self.padding == "end":
            x = F.pad(x, [width for length in reversed(x.shape[2:]) for width in (length % 2, 1)])
        return self.conv(x)


class _Average(nn.Module):
    """Averages windows 2 wide, only of a size of 1."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]

    def forward(self, x: Tensor) -> Tensor:
        return self._average(x, [min(2, size) for size in x.shape[2:]], stride=2, ceil_mode=True)


class Upsample(nn.Module):
    """Doubles each size by repeating values, then crops and convolves.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input and the output.
        learned: Whether a convolution follows.

    Examples:
        >>> import torch
        >>> Upsample(2, 4)(torch.zeros(1, 4, 4, 4), size=(7, 8)).shape
        torch.Size([1, 4, 7, 8])
    """

    def __init__(self, rank: int, channels: int, *, learned: bool = True) -> None:
        super().__init__()
        self.conv = conv(rank, channels, channels) if learned else nn.Identity()

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """Maps `b c h w` to `size`, in which each input size n has become 2 n or 2 n - 1."""
        return self.conv(crop(F.interpolate(x, scale_factor=2.0, mode="nearest"), size))


def conv(
    rank: int,
    channels: int,
    out_channels: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    bias: bool = True,
) -> nn.Module:
    """A convolution over `rank` spatial sizes, `b channels h w` to `b out_channels h w`.

    With the default padding an odd `kernel` keeps the sizes or, with a `stride`, divides them by it and rounds up.
    """
    make = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    padding = kernel // 2 if padding is None else padding
    return make(channels, out_channels, kernel, stride=stride, padding=padding, groups=groups, bias=bias)


def zero_init(module: nn.Module) -> nn.Module:
    """Sets all parameters of a module to zero and returns the module."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def init_xavier(module: M, scale: float = 1.0) -> M:
    """Initialises weights uniformly with variance `scale / mean(fan_in, fan_out)` and biases with 0, in place."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter, gain=math.sqrt(scale))
    return module


def broadcast(vector: Tensor, like: Tensor) -> Tensor:
    """Reshapes `vector`, `b d`, to broadcast over the positions of `like`, `b c h w`: `b d 1 1`."""
    return vector.reshape(*vector.shape, *(1,) * (like.ndim - 2))


def crop(x: Tensor, size: Sequence[int]) -> Tensor:
    """Crops a map `b c h w` to `size`, removing values at the end of each dimension."""
    for dim, length in enumerate(size, start=2):
        x = x.narrow(dim, 0, length)
    return x


def get_map_size(owner: str, x: TensorType) -> tuple[int, ...]:
    """Returns the spatial size of a continuous map.

    Raises:
        ValueError: If `x` is codes or a vector, or has more than three spatial sizes. The message names `owner`.

    Examples:
        >>> get_map_size("UNet", TensorType((3, 32, 24)))
        (32, 24)
    """
    if x.classes is not None or not 2 <= len(x.shape) <= 4:
        raise ValueError(f"{owner} expects continuous maps of shape (c, t), (c, h, w) or (c, t, h, w), got {x}")
    return x.shape[1:]


def check_levels(owner: str, channels: Sequence[int]) -> None:
    """Checks that a pyramid has a level.

    Raises:
        ValueError: If there is none. The message names `owner`.
    """
    if not channels:
        raise ValueError(f"{owner} expects channels of one level or more, got none")


def make_pyramid(size: Sequence[int], num: int) -> list[tuple[int, ...]]:
    """Computes the sizes of `num` levels, finest first; each is half of the one before, rounded up.

    Examples:
        >>> make_pyramid((28, 28), 3)
        [(28, 28), (14, 14), (7, 7)]
    """
    sizes = [tuple(size)]
    while len(sizes) < num:
        sizes.append(tuple(-(-length // 2) for length in sizes[-1]))
    return sizes


class Level(NamedTuple):
    """A level of a pyramid.

    Args:
        size: Spatial sizes of its maps.
        channels: Their number of channels.
    """

    size: tuple[int, ...]
    channels: int


def choose_levels(owner: str, x: TensorType, channels: int) -> list[Level]:
    """Chooses the levels of a network of images, signals or volumes, finest first.

    Each level is half of the one before, rounded up, and has twice its channels, up to eight times those of the first.
    The coarsest has about 4 positions along its shortest side.

    Raises:
        ValueError: If `x` is no map, or `channels` is below 1. The message names `owner`.

    Examples:
        >>> [(level.size, level.channels) for level in choose_levels("R3GANGenerator", TensorType((3, 32, 20)), 8)]
        [((32, 20), 8), ((16, 10), 16), ((8, 5), 32)]
    """
    size = get_map_size(owner, x)
    num = 1 + max(0, round(math.log2(min(size)) - 2))
    return [Level(one, channels * min(2**level, 8)) for level, one in enumerate(make_pyramid(size, num))]
