r"""Resampling by two under a low-pass filter, as in the networks of StyleGAN2 and NCSN++.

    down:  y_i = sum_j k_j x_{2i + j - p}             up:  y_o = 2 sum_i k_{o + p - 2i} x_i             p = (l - 2) / 2

The filter has l taps that sum to 1 and is applied along each spatial size, with zeros beyond the ends of x. The taps
[1, 3, 3, 1] / 8 let less alias through than [1, 1] / 2, which averages pairs on the way down and repeats values on the
way up. An odd size n is downsampled to (n + 1) / 2, as if x ended in one more zero.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Making Convolutional Networks Shift-Invariant Again (Zhang, 2019), https://arxiv.org/abs/1904.11486
    Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import conv as make_conv

__all__ = ["FIRDownsample", "FIRUpsample"]

_SMOOTH, _BOX = (1.0, 3.0, 3.0, 1.0), (1.0, 1.0)
_CONV = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class FIRDownsample(nn.Module):
    """Filters and keeps every second value along each size; n becomes ceil(n / 2).

    Args:
        rank: Number of spatial sizes.
        conv: Channels of the input and the output of a 3-wide convolution of stride 2 that replaces the subsampling and
            also sees the filter's margin; None keeps the values as they are filtered.
        smooth: Whether the taps are [1, 3, 3, 1] / 8. Otherwise they are [1, 1] / 2 or, with a convolution, there is no
            filter, and x is padded at its end.

    Examples:
        >>> FIRDownsample(1, smooth=False)(torch.tensor([[[1.0, 3.0, 5.0, 7.0]]]))
        tensor([[[2., 6.]]])
    """

    kernel: Tensor

    def __init__(self, rank: int, conv: tuple[int, int] | None = None, *, smooth: bool = True) -> None:
        super().__init__()
        self.rank = rank
        self.smooth = smooth
        self.conv = None if conv is None else make_conv(rank, *conv, stride=2, padding=0)
        self.register_buffer("kernel", _make_kernel(rank, smooth), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to half the size."""
        if self.conv is None:
            pad = 1 if self.smooth else 0
            return _filter(_pad(x, pad, pad), self.kernel, self.rank, stride=2)
        y: Tensor = self.conv(_filter(_pad(x, 2, 2), self.kernel, self.rank) if self.smooth else _pad(x, 0, 1))
        return y


class FIRUpsample(nn.Module):
    """Inserts a zero after each value along each size and filters; n becomes 2 n.

    Args:
        rank: Number of spatial sizes.
        conv: Channels of the input and the output of a 3-wide convolution that follows and also sees the filter's
            margin, or None.
        smooth: Whether the taps are [1, 3, 3, 1] / 8. Otherwise they are [1, 1] / 2, so that values are repeated, and
            the convolution is padded.

    Examples:
        >>> FIRUpsample(1, smooth=False)(torch.tensor([[[1.0, 3.0]]]))
        tensor([[[1., 1., 3., 3.]]])
    """

    kernel: Tensor

    def __init__(self, rank: int, conv: tuple[int, int] | None = None, *, smooth: bool = True) -> None:
        super().__init__()
        self.rank = rank
        self.pad = 1 if smooth and conv is None else 0  # a convolution needs the filter's margin, one value at each end
        self.register_buffer("kernel", 2**rank * _make_kernel(rank, smooth), persistent=False)
        self.conv = None if conv is None else make_conv(rank, *conv, padding=0 if smooth else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to twice the size."""
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, *self.kernel.shape)
        y = _TRANSPOSED[self.rank - 1](x, kernel, stride=2, padding=self.pad, groups=channels)
        return y if self.conv is None else self.conv(y)


def _make_kernel(rank: int, smooth: bool) -> Tensor:
    """The outer product of the taps with themselves; its values sum to 1."""
    taps = torch.tensor(_SMOOTH if smooth else _BOX)
    taps = kernel = taps / taps.sum()
    for _ in range(rank - 1):
        kernel = kernel[..., None] * taps
    return kernel


def _pad(x: Tensor, before: int, after: int) -> Tensor:
    """Pads each size of `x` with zeros before and after, an odd size with one more after."""
    pads = [pad for size in reversed(x.shape[2:]) for pad in (before, after + size % 2)]
    return F.pad(x, pads)


def _filter(x: Tensor, kernel: Tensor, rank: int, *, stride: int = 1) -> Tensor:
    channels = x.shape[1]
    return _CONV[rank - 1](x, kernel.to(x.dtype).expand(channels, 1, *kernel.shape), stride=stride, groups=channels)
