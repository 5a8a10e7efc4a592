"""Transforms: invertible functions of each value, whose parameters a network computes from other values.

    affine    y = exp(s) x + t,    s in (-5, 5)
    spline    a rational-quadratic spline (`modkit.bijections.spline`)

With parameters of 0 both are the identity, from which a flow starts.
"""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from modkit.bijections.spline import Spline
from modkit.types import Range

__all__ = ["Affine", "Bins", "Bound", "Transform", "TransformName", "make_transform"]

TransformName: TypeAlias = Annotated[
    Literal["affine", "spline"],
    "Function of each value: scaled and shifted (`affine`; Dinh et al., 2017), or a rational-quadratic spline "
    "(`spline`; Durkan et al., 2019).",
]
Bins: TypeAlias = Annotated[int, "Number of a spline's bins.", Range(2, 500)]
Bound: TypeAlias = Annotated[float, "A spline is the identity outside of [-bound, bound].", Range(above=0)]

_LIMIT = 5.0  # of a log scale: an untrained or extreme network must not overflow a chain


class Transform(Protocol):
    """An invertible function of each value. `.num` is the number of its parameters."""

    num: int

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Computes y and log dy/dx, of the shape of x, given parameters `... num`, both in at least float32."""
        ...

    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """Computes the x of `y` with the same parameters."""
        ...


class Affine:
    """Scales and shifts each value; see `Transform`.

    Examples:
        >>> y, log_slope = Affine().forward(torch.tensor([2.0]), torch.tensor([[3.0, 0.0]]))
        >>> y, log_slope
        (tensor([5.]), tensor([0.]))
    """

    num = 2

    def forward(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Computes y and log dy/dx, of the shape of x, given parameters `... 2`: t, and s before its limit."""
        shift, log_scale = _split(raw)
        return x * log_scale.exp() + shift, log_scale

    def inverse(self, y: Tensor, raw: Tensor) -> Tensor:
        """Computes the x of `y`."""
        shift, log_scale = _split(raw)
        return (y - shift) * (-log_scale).exp()


def make_transform(name: str, bins: int, bound: float) -> Transform:
    """Makes the transform that a part names.

    Raises:
        ValueError: If there is none of that name, or `bins` or `bound` is out of range.
    """
    return Affine() if name == "affine" else Spline(bins=bins, bound=bound)


def _split(raw: Tensor) -> tuple[Tensor, Tensor]:
    shift, log_scale = raw.unbind(-1)
    return shift, _LIMIT * torch.tanh(log_scale / _LIMIT)
