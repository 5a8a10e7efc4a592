"""Inverse: a bijection in the other direction, y = bijection^-1(x), whose log|det dy/dx| is minus that at y."""

from __future__ import annotations

from torch import Tensor, nn

from modkit.kinds import Bijection, Slot, default
from modkit.types import Cond, CondType, TensorType

__all__ = ["Inverse"]


class Inverse(nn.Module):
    """Exchanges the two directions of a bijection.

    Around `autoregressive`, a flow is drawn by one evaluation and its density takes one for each value (IAF).

    Args:
        x: Type of x.
        cond: Conditions, which the bijection is given.
        bijection: The bijection, which is not prepared with data: it sees none in its own direction.

    Examples:
        >>> import torch
        >>> from modkit import use
        >>> from modkit.models import Flow
        >>> model = Flow(TensorType((3,)), bijection=use("inverse", bijection="linear"))
        >>> x = torch.ones(2, 3)
        >>> torch.allclose(model.bijection.bijection(model.bijection(x)[0])[0], x, atol=1e-5)
        True
    """

    def __init__(
        self, x: TensorType, cond: CondType = CondType(), *, bijection: Slot[Bijection] = default("autoregressive")
    ) -> None:
        super().__init__()
        self.bijection = bijection(x=x, cond=cond)

    def forward(self, x: Tensor, cond: Cond = Cond()) -> tuple[Tensor, Tensor]:
        """Computes y, of the shape of x, and log|det dy/dx|, `b`."""
        y = self.bijection.inverse(x, cond)
        return y, -self.bijection(y, cond)[1]

    def inverse(self, y: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes the x that is mapped to `y`."""
        return self.bijection(y, cond)[0]
