r"""The rational-quadratic spline: a monotone function of each value, between knots (x_k, y_k) with slopes d_k.

    y = y_k + h_k (s_k xi^2 + d_k xi (1 - xi)) / (s_k + (d_{k+1} + d_k - 2 s_k) xi (1 - xi))
    xi = (x - x_k) / w_k,    s_k = h_k / w_k,    the identity outside of [-bound, bound]

w_k and h_k are the width and height of a bin, 2 bound times a softmax; the slopes at both ends are 1, so that the
function and its derivative are continuous. With parameters of 0 it is the identity.

Shape letters: k bins.

References:
    Neural Spline Flows (Durkan et al., 2019), eq. 4 to 8 and appendix A.1, https://arxiv.org/abs/1906.04032
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from modkit.types import PositiveFloat, Range, checked

__all__ = ["Spline"]

_LEAST = 1e-3  # of a bin's share of the width and height, and of a slope
_SHIFT = math.log(math.expm1(1 - _LEAST))  # at which a raw slope of 0 is a slope of 1


@checked
class Spline:
    """A rational-quadratic spline of each value; see `Transform`.

    Args:
        bins: Number of bins k.
        bound: Outside of [-bound, bound] it is the identity.

    Raises:
        ValueError: If `bins` is not in [2, 500], or `bound` not above 0.

    Examples:
        >>> spline = Spline(bins=4, bound=2.0)
        >>> x = torch.tensor([-3.0, 0.3, 2.0])
        >>> y, log_slope = spline.forward(x, torch.zeros(3, spline.num))
        >>> torch.allclose(y, x), torch.allclose(log_slope, torch.zeros(3), atol=1e-6)
        (True, True)
    """

    def __init__(self, *, bins: Annotated[int, Range(2, 500)], bound: PositiveFloat) -> None:
        self.bins, self.bound = bins, bound
        self.num = 3 * bins - 1

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Computes y and log dy/dx, of the shape of x, given parameters `... num`."""
        inside = x.abs() <= self.bound
        knots = self._make_knots(raw)
        x_in = x.clamp(-self.bound, self.bound)  # or gradients behind `where` would not be finite
        x_k, width, y_k, height, slope, next_slope = _find_bin(x_in, knots[0], knots)
        xi = (x_in - x_k) / width
        mean = height / width
        both = xi * (1 - xi)
        below = mean + (next_slope + slope - 2 * mean) * both
        y = y_k + height * (mean * xi**2 + slope * both) / below
        gained = 2 * mean.log() - 2 * below.log()
        gained = gained + (next_slope * xi**2 + 2 * mean * both + slope * (1 - xi) ** 2).log()
        return torch.where(inside, y, x), torch.where(inside, gained, torch.zeros_like(gained))

    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """Computes the x of `y`, by the root of a quadratic equation that does not cancel."""
        inside = y.abs() <= self.bound
        knots = self._make_knots(raw)
        y_in = y.clamp(-self.bound, self.bound)
        x_k, width, y_k, height, slope, next_slope = _find_bin(y_in, knots[1], knots)
        mean, rise = height / width, y_in - y_k
        bend = rise * (next_slope + slope - 2 * mean)
        a, b, c = height * (mean - slope) + bend, height * slope - bend, -mean * rise
        xi = 2 * c / (-b - (b**2 - 4 * a * c).clamp(min=0).sqrt())
        return torch.where(inside, x_k + xi * width, y)

    def _make_knots(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the places `... k+1` of the knots along both axes, and their slopes."""
        widths, heights, slopes = torch.split(raw, [self.bins, self.bins, self.bins - 1], dim=-1)
        slopes = _LEAST + F.softplus(slopes + _SHIFT)
        return self._place(widths), self._place(heights), F.pad(slopes, (1, 1), value=1.0)

    def _place(self, raw: Tensor) -> Tensor:
        share = _LEAST + (1 - _LEAST * self.bins) * raw.softmax(-1)
        inner = share.cumsum(-1)[..., :-1] * (2 * self.bound) - self.bound
        return F.pad(F.pad(inner, (1, 0), value=-self.bound), (0, 1), value=self.bound)


def _find_bin(value: Tensor, places: Tensor, knots: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Finds the bin of each value along one axis: its corner and size along both, and the slopes at its ends."""
    index = (value[..., None] >= places[..., 1:-1]).sum(-1, keepdim=True)
    ends = [(one.gather(-1, index).squeeze(-1), one.gather(-1, index + 1).squeeze(-1)) for one in knots]
    (x_k, x_next), (y_k, y_next), (slope, next_slope) = ends
    return x_k, x_next - x_k, y_k, y_next - y_k, slope, next_slope
