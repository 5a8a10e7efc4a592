r"""Linear: an invertible map of the channels at every position, a 1×1 convolution with a known determinant.

    y = P L (U + diag(sign exp(log_scale))) x,    log|det dy/dx| = positions * sum log_scale

L is lower triangular with ones on its diagonal, U strictly upper triangular; P, a permutation, and the signs stay as
they are. It starts as a random rotation.

References:
    Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma and Dhariwal, 2018), section 3.2 and eq. 10,
    https://arxiv.org/abs/1807.03039

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modkit.bijections.channels import count_channels
from modkit.precision import disable_autocast, widen
from modkit.types import Cond, CondType, TensorType

__all__ = ["Linear"]


class Linear(nn.Module):
    """An invertible linear map of the channels, or of a vector, in LU form.

    Args:
        x: Type of x, continuous, of two or more channels.
        cond: Conditions, which it does not use.

    Raises:
        ValueError: If x holds codes, or has a single channel.

    Examples:
        >>> linear = Linear(TensorType((3, 4, 4)))
        >>> x = torch.ones(2, 3, 4, 4)
        >>> y, log_det = linear(x)
        >>> torch.allclose(linear.inverse(y), x, atol=1e-5), torch.allclose(log_det, torch.zeros(2), atol=1e-4)
        (True, True)
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, x: TensorType, cond: CondType = CondType()) -> None:
        super().__init__()
        channels = count_channels("Linear", x, least=2)
        self.positions = x.numel // channels
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.log_scale = nn.Parameter(diagonal.abs().log())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))

    def forward(self, x: Tensor, cond: Cond = Cond()) -> tuple[Tensor, Tensor]:
        """Computes y, `b c h w`, and log|det dy/dx|, `b`, in at least float32 in any precision of training."""
        with disable_autocast(x.device):
            lower, upper = self._factor()
            y = widen(self.permutation) @ (lower @ (upper @ widen(x).reshape(*x.shape[:2], -1)))
        log_det = self.positions * widen(self.log_scale).sum()
        return y.view_as(x).to(x.dtype), log_det.expand(len(x))

    def inverse(self, y: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes the x that is mapped to `y`, by substitution."""
        with disable_autocast(y.device):
            lower, upper = self._factor()
            x = widen(self.permutation).mT @ widen(y).reshape(*y.shape[:2], -1)
            x = torch.linalg.solve_triangular(lower, x, upper=False, unitriangular=True)
            x = torch.linalg.solve_triangular(upper, x, upper=True)
        return x.view_as(y).to(y.dtype)

    def _factor(self) -> tuple[Tensor, Tensor]:
        """Computes the triangular factors, `c c`."""
        lower, upper = widen(self.lower).tril(-1), widen(self.upper).triu(1)
        diagonal = widen(self.sign) * widen(self.log_scale).exp()
        return lower + torch.eye(len(diagonal), dtype=lower.dtype, device=lower.device), upper + diagonal.diag()
