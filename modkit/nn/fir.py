r"""Resampling by two under a low-pass filter, as in the networks of StyleGAN2, NCSN++ and R3GAN.

    down:  y_i = sum_j k_j x_{2i + j - p}         up:  y_o = 2 sum_i k_{o + p - 2i} x_i         p = floor((l - 1) / 2)

The filter has l taps that sum to 1 and is applied along each spatial size, with zeros beyond the ends of x. The taps
[1, 3, 3, 1] / 8 let less alias through than [1, 1] / 2, which averages pairs on the way down and repeats values on the
way up, where [1, 3, 3, 1] / 8 interpolates linearly except at the borders. Filters of odd length, such as [1, 2, 1],
move a map by half a fine value at each doubling or halving. An odd size n is downsampled to (n + 1) / 2, as if x ended
in one more zero.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Making Convolutional Networks Shift-Invariant Again (Zhang, 2019), https://arxiv.org/abs/1904.11486
    Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), https://arxiv.org/abs/1912.04958
    The GAN is dead; long live the GAN! (Huang et al., 2024), https://arxiv.org/abs/2501.05441
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import conv as make_conv
from modkit.ops.fir import resample_fir

__all__ = ["BOX", "SMOOTH", "FIRDownsample", "FIRUpsample", "make_taps"]

SMOOTH, BOX = (1.0, 3.0, 3.0, 1.0), (1.0, 1.0)


class FIRDownsample(nn.Module):
    """Filters and keeps every second value along each size; n becomes ceil(n / 2).

    Args:
        rank: Number of spatial sizes.
        conv: Channels of the input and the output of a 3-wide convolution of stride 2 that replaces the subsampling and
            also sees the filter's margin; None keeps the values as they are filtered.
        taps: The filter, whose sum is divided out. With a convolution, it is `SMOOTH` or `BOX`; `BOX` then stands for
            no filter, and x is padded at its end.

    Raises:
        ValueError: If there is a convolution, and the taps are others, or if their sum is not above 0.

    Examples:
        >>> FIRDownsample(1, taps=BOX)(torch.tensor([[[1.0, 3.0, 5.0, 7.0]]]))
        tensor([[[2., 6.]]])
    """

    taps: Tensor

    def __init__(self, rank: int, conv: tuple[int, int] | None = None, *, taps: Sequence[float] = SMOOTH) -> None:
        super().__init__()
        _check_taps(self, conv, taps)
        self.filters = len(taps) > len(BOX)
        self.conv = None if conv is None else make_conv(rank, *conv, stride=2, padding=0)
        self.register_buffer("taps", make_taps(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to half the size."""
        sizes = x.shape[2:]
        if self.conv is None:
            halved = [(n + 1) // 2 for n in sizes]
            return resample_fir(x, self.taps, stride=2, padding=(len(self.taps) - 1) // 2, size=halved)
        if self.filters:
            x = resample_fir(x, self.taps, stride=1, padding=2, size=[n + 1 + n % 2 for n in sizes])
        else:
            x = F.pad(x, [end for n in reversed(sizes) for end in (0, 1 + n % 2)])
        return self.conv(x)


class FIRUpsample(nn.Module):
    """Inserts a zero after each value along each size and filters; n becomes 2 n.

    Args:
        rank: Number of spatial sizes.
        conv: Channels of the input and the output of a 3-wide convolution that follows and also sees the filter's
            margin, or None.
        taps: The filter, whose sum is divided out. With a convolution, it is `SMOOTH` or `BOX`; for `BOX`, which
            repeats values, the convolution is padded.

    Raises:
        ValueError: If there is a convolution, and the taps are others, or if their sum is not above 0.

    Examples:
        >>> FIRUpsample(1, taps=BOX)(torch.tensor([[[1.0, 3.0]]]))
        tensor([[[1., 1., 3., 3.]]])
    """

    taps: Tensor

    def __init__(self, rank: int, conv: tuple[int, int] | None = None, *, taps: Sequence[float] = SMOOTH) -> None:
        super().__init__()
        _check_taps(self, conv, taps)
        self.margin = len(taps) - len(BOX) if conv else 0  # a convolution needs the filter's, one value at each end
        self.pad = 0 if conv else (len(taps) - 1) // 2
        self.register_buffer("taps", 2 * make_taps(taps), persistent=False)
        self.conv = None if conv is None else make_conv(rank, *conv, padding=0 if self.margin else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b c h w` to twice the size."""
        size = [2 * n + self.margin for n in x.shape[2:]]
        y = resample_fir(x, self.taps, stride=2, padding=self.pad, size=size, transposed=True)
        return y if self.conv is None else self.conv(y)


def _check_taps(owner: nn.Module, conv: object, taps: Sequence[float]) -> None:
    if conv and tuple(taps) not in (SMOOTH, BOX):
        raise ValueError(f"{type(owner).__name__} with a convolution expects taps {SMOOTH} or {BOX}, got {tuple(taps)}")


def make_taps(taps: Sequence[float]) -> Tensor:
    """Makes a filter of taps that sum to 1, `l`.

    Raises:
        ValueError: If the sum of `taps` is not above 0.
    """
    if not sum(taps) > 0:
        raise ValueError(f"make_taps expects taps with a sum above 0, got {tuple(taps)}")
    made = torch.tensor(taps)
    return made / made.sum()
