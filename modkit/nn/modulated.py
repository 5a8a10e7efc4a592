r"""Modulated convolution: each sample scales the input channels of a convolution, and its output has unit variance.

    s = A w + 1,   y_o = d_o (W * (s x))_o,   d_o = 1 / sqrt(sum over i, k of (W_oik s_i)^2 + 1e-8)

This is the convolution by the weights d_o s_i W_oik, one filter bank for each sample, but computed as one convolution
for the whole batch: scaling the input and the output is the same, and faster than a convolution in groups. A is
equalised, and so is W. Without demodulation, d = 1.

Doubling the size, the convolution is transposed with stride 2, and followed by the filter [1, 3, 3, 1].

Shape letters: b batch, c channels, d style, h w spatial (one, two or three sizes).

References:
    Analyzing and Improving the Image Quality of StyleGAN (Karras et al., 2020), eq. 1 and 3,
    https://arxiv.org/abs/1912.04958
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from modkit.nn.blocks import broadcast, conv
from modkit.nn.equalized import equalize
from modkit.nn.fir import SMOOTH, make_taps
from modkit.ops.fir import resample_fir
from modkit.precision import disable_autocast, widen

__all__ = ["ModulatedConv"]

_TINY = 1e-8
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


class ModulatedConv(nn.Module):
    """Convolves maps by weights that styles modulate, without a bias.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        style: Width of the styles.
        kernel: Width of the kernel, odd; 3 if it upsamples.
        demodulate: Whether outputs are divided by their expected standard deviation.
        upsample: Whether to double the sizes.

    Examples:
        >>> import torch
        >>> layer = ModulatedConv(2, 4, 8, style=6, upsample=True)
        >>> layer(torch.zeros(2, 4, 5, 5), torch.zeros(2, 6)).shape
        torch.Size([2, 8, 10, 10])
    """

    taps: Tensor

    def __init__(
        self,
        rank: int,
        channels: int,
        out_channels: int,
        *,
        style: int,
        kernel: int = 3,
        demodulate: bool = True,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.affine = equalize(nn.Linear(style, channels))
        self.conv = equalize(conv(rank, channels, out_channels, kernel=kernel, bias=False))
        self.demodulate, self.upsample = demodulate, upsample
        self.register_buffer("taps", 2 * make_taps(SMOOTH), persistent=False)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps `b c h w` to `b out_channels h w`, or twice the size, by styles `b d`."""
        scale = 1 + self.affine(w)
        y = self._convolve(x * broadcast(scale, x))
        return y * broadcast(self._find_norm(scale), y).to(y.dtype) if self.demodulate else y

    @property
    def _weight(self) -> Tensor:
        return cast(Tensor, self.conv.weight)

    def _convolve(self, x: Tensor) -> Tensor:
        y: Tensor
        if not self.upsample:
            y = self.conv(x)
            return y
        y = _TRANSPOSED[x.ndim - 3](x, self._weight.transpose(0, 1), stride=2)
        return resample_fir(y, self.taps, stride=1, padding=1, size=[2 * n for n in x.shape[2:]])

    def _find_norm(self, scale: Tensor) -> Tensor:
        """Computes d, `b out_channels`, in at least float32."""
        with disable_autocast(scale.device):
            squares = widen(self._weight).square().flatten(2).sum(2)
            return (widen(scale).square() @ squares.T + _TINY).rsqrt()
