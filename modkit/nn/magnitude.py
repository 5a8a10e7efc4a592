r"""Layers that preserve magnitudes, as in EDM2: what has an expected magnitude of 1 has it afterwards.

    magnitude   M[x] = sqrt(mean of E[x_i^2])
    weights     y = g w_hat x,   w_hat_j = w_j / |w_j|          a row w_j for each output, over channels and kernel
    forced      w_j <- sqrt(N) w_j / |w_j|                      after each step; N inputs to an output
    pixel norm  x / sqrt(mean of x_i^2 + 1e-4)                  over channels
    SiLU        silu(x) / .596                                  .596 = M[silu(z)], z ~ N(0, 1)
    sum         ((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)
    cat         sqrt((N_a + N_b) / ((1 - t)^2 + t^2)) [(1 - t) a / sqrt(N_a), t b / sqrt(N_b)]

Since a row's length has no effect, its gradient is orthogonal to it. Without forcing, each step would hence lengthen
it, and turn it less than the one before; kept at a magnitude of 1, only the learning rate turns it.

Shape letters: b batch, c channels, h w spatial (one, two or three sizes).

References:
    Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), eqs. 30, 47, 66, 81, 88
    and 103, https://arxiv.org/abs/2312.02696
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.optim.shards import get_local
from modkit.precision import widen

__all__ = ["UnitConv", "activate", "concatenate", "mix", "normalize", "normalize_weights"]

_SILU = 0.596
_TINY = 1e-4


class UnitConv(nn.Module):
    """A convolution with rows of unit norm and without bias; of rank 0, a linear layer on the last axis.

    Args:
        rank: Number of spatial sizes.
        channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Size of the kernel, odd; sizes of maps stay.

    Examples:
        >>> x = torch.randn(4, 64, 16, 16)
        >>> y = UnitConv(2, 64, 64, kernel=1)(x)
        >>> y.shape, bool((y.square().mean().sqrt() - 1).abs() < 0.1)
        (torch.Size([4, 64, 16, 16]), True)
    """

    def __init__(self, rank: int, channels: int, out_channels: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.rank, self.kernel = rank, kernel
        self.weight = nn.Parameter(torch.randn(out_channels, channels, *[kernel] * rank))

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        """Maps `b channels h w` to `b out_channels h w`, times `gain`; of rank 0, `... channels`."""
        weight = self.scale_rows(gain).to(x.dtype)
        if self.rank == 0:
            return F.linear(x, weight)
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.rank - 1]
        return convolve(x, weight, padding=self.kernel // 2)

    def scale_rows(self, length: Tensor | float) -> Tensor:
        """Its weight with rows of a length, at least in float32."""
        weight = widen(self.weight)
        return weight * (length / _measure_rows(weight))


@torch.no_grad()
def normalize_weights(module: nn.Module) -> None:
    """Gives the rows of all unit convolutions in a module a magnitude of 1, which changes nothing that they compute."""
    weights = [one.weight for one in module.modules() if isinstance(one, UnitConv)]
    for weight in get_local(weights):  # of weights that are divided among processes, each has whole rows
        weight.mul_(math.sqrt(math.prod(weight.shape[1:])) / _measure_rows(weight))


def normalize(x: Tensor, dim: int = 1) -> Tensor:
    """Normalizes each vector along a dimension to a magnitude of 1: the pixel norm of `b c h w`."""
    return x / (widen(x).square().mean(dim, keepdim=True) + _TINY).sqrt().to(x.dtype)


def activate(x: Tensor) -> Tensor:
    """SiLU, divided by the magnitude that it gives to normal values."""
    return F.silu(x) / _SILU


def mix(a: Tensor, b: Tensor, t: float) -> Tensor:
    """The sum of `a` and `b` at the share `t` of b, of magnitude 1 if they are uncorrelated.

    Examples:
        >>> mix(torch.ones(1), torch.ones(1), 0.5)
        tensor([1.4142])
    """
    norm = math.hypot(1 - t, t)
    return torch.add((1 - t) / norm * a, b, alpha=t / norm)


def concatenate(a: Tensor, b: Tensor) -> Tensor:
    """Concatenates channels, scaled so that `a` and `b` contribute alike to what follows, and the whole keeps 1."""
    scale = math.sqrt((a.shape[1] + b.shape[1]) / 2)
    return torch.cat([scale / math.sqrt(a.shape[1]) * a, scale / math.sqrt(b.shape[1]) * b], dim=1)


def _measure_rows(weight: Tensor) -> Tensor:
    """Computes the norms of the rows of a weight, to divide by."""
    norm: Tensor = torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
    return norm.clamp(min=torch.finfo(weight.dtype).tiny)
