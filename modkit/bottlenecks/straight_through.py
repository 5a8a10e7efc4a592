r"""Gradient estimators for quantisers, whose derivative is zero almost everywhere.

    straight through:   dz_q / dz = I
    rotation:           dz_q / dz = |z_q| / |z| R,   R = I - 2 r r^T + 2 q e^T,   R e = q
                        e = z / |z|,   q = z_q / |z_q|,   r = (e + q) / |e + q|

R rotates the vector before quantisation to the direction of the one after; it is treated as a constant.

Shape letters: b batch, c channels, h w spatial (none, one, two or three sizes).

References:
    Estimating or Propagating Gradients (Bengio et al., 2013), section 3, https://arxiv.org/abs/1308.3432
    Restructuring Vector Quantization with the Rotation Trick (Fifty et al., 2024), section 4,
    https://arxiv.org/abs/2410.06424
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["rotation_trick", "straight_through"]

_TINY = 1e-6


def straight_through(z: Tensor, z_q: Tensor) -> Tensor:
    """Returns exactly `z_q`, with the gradient of `z`.

    Examples:
        >>> z = torch.tensor([0.3], requires_grad=True)
        >>> straight_through(z, z.round()).backward()
        >>> z.grad
        tensor([1.])
    """
    return _StraightThrough.apply(z, z_q)  # type: ignore[no-untyped-call, unused-ignore]


def rotation_trick(z: Tensor, z_q: Tensor) -> Tensor:
    """Returns exactly `z_q`, with the gradient of `z` under the rotation and scaling that turn `z` into `z_q`.

    Args:
        z: Vectors before quantisation, `b c h w`.
        z_q: Vectors after quantisation, `b c h w`.

    Examples:
        >>> z = torch.tensor([[1.0, 0.0]], requires_grad=True)
        >>> rotation_trick(z, torch.tensor([[0.0, 2.0]])).sum().backward()
        >>> z.grad.round()
        tensor([[ 2., -2.]])
    """
    before, after = z.detach(), z_q.detach()
    length = before.norm(dim=1, keepdim=True).clamp_min(_TINY)
    e, q = before / length, F.normalize(after, dim=1, eps=_TINY)
    r = F.normalize(e + q, dim=1, eps=_TINY)
    turned = z - 2 * r * (r * z).sum(1, keepdim=True) + 2 * q * (e * z).sum(1, keepdim=True)
    return straight_through(after.norm(dim=1, keepdim=True) / length * turned, after)


class _StraightThrough(torch.autograd.Function):
    """The second tensor with the gradient of the first; nothing is computed or saved."""

    @staticmethod
    def forward(z: Tensor, z_q: Tensor) -> Tensor:
        return z_q.view_as(z_q)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, None]:
        return grads[0], None
