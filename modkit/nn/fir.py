r"""Resampling by two under a low-pass filter, as StyleGAN2's and NCSN++'s networks do.

    down:  y_i = sum_j k_j x_{2i + j - p}             up:  y_o = 2 sum_i k_{o + p - 2i} x_i             p = (l - 2) / 2

along each spatial size, x being zero beyond its ends, for l taps that sum to 1: [1, 3, 3, 1] / 8 lets less alias
through than [1, 1] / 2, which is the mean of two going down and repetition going up. An odd size n goes down to
(n + 1) / 2, as if x had one more zero.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Making Convolutional Networks Shift-Invariant Again (Zhang, 2019), https://arxiv.org/abs/1904.11486
    Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvHalve", "Double", "DoubleConv", "Halve"]

_SMOOTH, _BOX = (1.0, 3.0, 3.0, 1.0), (1.0, 1.0)
_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_MODULES: dict[int, type[nn.Conv1d | nn.Conv2d | nn.Conv3d]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


class Halve(nn.Module):
    """Filters, then keeps every second value of each size; n becomes ceil(n / 2).

    Args:
        rank: Number of spatial sizes.
        fir: Whether the taps are [1, 3, 3, 1] / 8, else [1, 1] / 2.
    """

    kernel: Tensor

    def __init__(self, rank: int, *, fir: bool = True) -> None:
        super().__init__()
        self.rank = rank
        self.pad = 1 if fir else 0
        self.register_buffer("kernel", _kernel(rank, fir), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to half the size."""
        return _filtered(_padded(x, self.pad, self.pad), self.kernel, self.rank, stride=2)


class Double(nn.Module):
    """Puts a zero after each value of each size and filters; n becomes 2 n.

    Args:
        rank: Number of spatial sizes.
        fir: Whether the taps are [1, 3, 3, 1] / 8, else [1, 1] / 2.
    """

    kernel: Tensor

    def __init__(self, rank: int, *, fir: bool = True) -> None:
        super().__init__()
        self.rank = rank
        self.pad = 1 if fir else 0
        self.register_buffer("kernel", 2**rank * _kernel(rank, fir), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to twice the size."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, *self.kernel.shape)
        return _TRANSPOSED[self.rank](x, kernel, stride=2, padding=self.pad, groups=channels)


class ConvHalve(nn.Module):
    """Filters and halves in a convolution of stride 2, which sees the filter's margin too; n becomes ceil(n / 2).

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        fir: Whether x is filtered by [1, 3, 3, 1] / 8 first; else it is the convolution alone, padded at its end.
    """

    kernel: Tensor

    def __init__(self, rank: int, channels: int, out_channels: int, *, fir: bool = True) -> None:
        super().__init__()
        self.rank = rank
        self.fir = fir
        self.conv = _MODULES[rank](channels, out_channels, 3, stride=2)
        self.register_buffer("kernel", _kernel(rank, True), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to half the size."""
        x = _filtered(_padded(x, 2, 2), self.kernel, self.rank) if self.fir else _padded(x, 0, 1)
        y: Tensor = self.conv(x)
        return y


class DoubleConv(nn.Module):
    """Doubles and convolves; the convolution sees the filter's margin too; n becomes 2 n.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        fir: Whether the taps are [1, 3, 3, 1] / 8, else it is repetition, and the convolution is padded.
    """

    def __init__(self, rank: int, channels: int, out_channels: int, *, fir: bool = True) -> None:
        super().__init__()
        self.upsample = Double(rank, fir=fir)
        self.upsample.pad = 0  # keeps the filter's margin, one value at each end
        self.conv = _MODULES[rank](channels, out_channels, 3, padding=0 if fir else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to twice the size."""
        y: Tensor = self.conv(self.upsample(x))
        return y


def _kernel(rank: int, fir: bool) -> Tensor:
    """The outer product of the taps with themselves, of sum 1."""
    taps = torch.tensor(_SMOOTH if fir else _BOX)
    taps = kernel = taps / taps.sum()
    for _ in range(rank - 1):
        kernel = kernel[..., None] * taps
    return kernel


def _padded(x: Tensor, before: int, after: int) -> Tensor:
    """`x` with zeros before and after each size; an odd one gets one more after."""
    pads = [pad for size in reversed(x.shape[2:]) for pad in (before, after + size % 2)]
    return F.pad(x, pads)


def _filtered(x: Tensor, kernel: Tensor, rank: int, *, stride: int = 1) -> Tensor:
    channels = x.shape[1]
    return _CONV[rank](x, kernel.to(x.dtype).expand(channels, 1, *kernel.shape), stride=stride, groups=channels)
