r"""A learned skewness and heaviness of the tails of each value.

    y = sinh(tail asinh(x) + skew),    log|det dy/dx| = sum log(tail cosh(tail asinh(x) + skew) / sqrt(1 + x^2))

A bijection maps samples to samples of the same shape, gives the logarithm of the volume that it gains, and has an
inverse (`modkit.kinds.Bijection`). This one acts on each value by itself; in a chain, others mix them.

Shape letters: b batch; all other axes are those of x.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit import Cond, CondType, TensorType
from modkit.precision import widen
from modkit.types import PositiveFloat, checked

__all__ = ["SinhArcsinh"]


@checked
class SinhArcsinh(nn.Module):
    """Changes the skewness and the tails of each value; the identity at first.

    References:
        Sinh-arcsinh Distributions (Jones and Pewsey, 2009), eq. 1, https://doi.org/10.1093/biomet/asp053

    Args:
        x: Type of x, continuous.
        cond: Conditions, which it does not use.
        tail: Initial exponent of the tails; above 1 those of y are heavier.

    Raises:
        ValueError: If `x` holds codes, or `tail` is not positive.
    """

    def __init__(self, x: TensorType, cond: CondType, *, tail: PositiveFloat = 1.0) -> None:
        super().__init__()
        if x.classes is not None:
            raise ValueError(f"SinhArcsinh expects a continuous x, got {x}")
        self.skew = nn.Parameter(torch.zeros(x.shape))
        self.log_tail = nn.Parameter(torch.full(x.shape, math.log(tail)))

    def forward(self, x: Tensor, cond: Cond | None = None) -> tuple[Tensor, Tensor]:
        """Computes y, of the shape of x, and log|det dy/dx|, `b`."""
        wide, log_tail = widen(x), widen(self.log_tail)
        u = log_tail.exp() * torch.asinh(wide) + self.skew
        log_cosh = u.abs() + F.softplus(-2 * u.abs()) - math.log(2)
        log_slope = log_tail + log_cosh - torch.log1p(wide.square()) / 2
        return torch.sinh(u).to(x.dtype), log_slope.flatten(1).sum(1)

    def inverse(self, y: Tensor, cond: Cond | None = None) -> Tensor:
        """Computes the x that is mapped to `y`."""
        u = torch.asinh(widen(y)) - self.skew
        return torch.sinh((-widen(self.log_tail)).exp() * u).to(y.dtype)
