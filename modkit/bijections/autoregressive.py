r"""Autoregressive: each value is changed given all values before it.

    y_i = transform(x_i; MADE(x_<i, cond)),    log|det dy/dx| = sum log transform'

One masked network computes the parameters of all values at once, so that y takes one evaluation. The inverse takes one
for each value: a flow of data is fast to train and slow to sample (MAF), and one that draws a posterior is fast to draw
(IAF). `inverse` around it exchanges the two.

    MADE: a unit of degree m sees units of degree at most m; value i has degree i, and its parameters see degrees below

References:
    MADE: Masked Autoencoder for Distribution Estimation (Germain et al., 2015), eq. 12 and 13,
    https://arxiv.org/abs/1502.03509
    Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), eq. 10 and 11,
    https://arxiv.org/abs/1606.04934
    Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017), section 3,
    https://arxiv.org/abs/1705.07057

Shape letters: b batch, d values in a sample, n parameters of a transform.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modkit.bijections.channels import count_channels
from modkit.bijections.transforms import Bins, Bound, TransformName, make_transform
from modkit.nn.blocks import zero_init
from modkit.nn.embeddings import CondEmbedding
from modkit.precision import widen
from modkit.types import Cond, CondType, PositiveInt, TensorType, checked

__all__ = ["Autoregressive"]


@checked
class Autoregressive(nn.Module):
    """A masked autoregressive transform of the flattened x.

    Args:
        x: Type of x, continuous.
        cond: Conditions; a map is flattened, tokens are not supported.
        width: Width of the hidden layers.
        depth: Number of hidden layers.
        reverse: Whether the order is from the last value to the first: layers that follow each other should alternate.

    Raises:
        ValueError: If x or a map of the conditions holds codes, the conditions have tokens, a number is out of range,
            or a choice is unknown.

    Examples:
        >>> bijection = Autoregressive(TensorType((3,)), width=16)
        >>> y, log_det = bijection(torch.ones(2, 3))
        >>> y.shape, log_det.tolist()
        (torch.Size([2, 3]), [0.0, 0.0])
    """

    order: Tensor

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        *,
        width: PositiveInt = 128,
        depth: PositiveInt = 2,
        reverse: bool = False,
        transform: TransformName = "affine",
        bins: Bins = 8,
        bound: Bound = 4.0,
    ) -> None:
        super().__init__()
        count_channels("Autoregressive", x)
        if cond.context is not None:
            raise ValueError(f"Autoregressive expects no context (it does not attend), got {cond.context}")
        if cond.own:
            raise ValueError(f"Autoregressive expects no conditions of a package's own, got {cond}")
        if cond.concat is not None and cond.concat.classes is not None:
            raise ValueError(f"Autoregressive expects a continuous map in its conditions, got {cond.concat}")
        self.transform = make_transform(transform, bins, bound)
        degrees = torch.arange(x.numel)
        order = degrees.flip(0) if reverse else degrees
        hidden = torch.arange(width) * x.numel // width  # a unit of degree m sees the first m values
        self.register_buffer("order", order, persistent=False)
        self.embedding = CondEmbedding(cond, width)
        self.concat = None if cond.concat is None else nn.Linear(cond.concat.numel, width, bias=False)
        self.stem = _MaskedLinear(hidden[:, None] > order)
        self.hidden = nn.ModuleList(_MaskedLinear(hidden[:, None] >= hidden) for _ in range(depth - 1))
        outputs = order.repeat_interleave(self.transform.num)
        self.out = zero_init(_MaskedLinear(outputs[:, None] >= hidden))

    def forward(self, x: Tensor, cond: Cond = Cond()) -> tuple[Tensor, Tensor]:
        """Computes y, of the shape of x, and log|det dy/dx|, `b`."""
        flat = x.flatten(1)
        y, log_slope = self.transform.forward(widen(flat), self._run(flat, cond))
        return y.to(x.dtype).view_as(x), log_slope.sum(1)

    def inverse(self, y: Tensor, cond: Cond = Cond()) -> Tensor:
        """Computes the x that is mapped to `y`, value after value."""
        flat = y.flatten(1)
        x = torch.zeros_like(flat)
        for index in range(flat.shape[1]):
            value = self.transform.inverse(widen(flat), self._run(x, cond)).to(y.dtype)
            x = torch.where(self.order == index, value, x)
        return x.view_as(y)

    def _run(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the parameters of all values, `b d n`, each from the values before it."""
        h = self.stem(x)
        if self.embedding.embeds:
            h = h + self.embedding(cond, x)
        if self.concat is not None:
            if cond.concat is None:
                raise ValueError("Autoregressive expects a Cond with `concat`, as its type says, got None")
            h = h + self.concat(cond.concat.flatten(1).to(x.dtype))
        for layer in self.hidden:
            h = layer(F.silu(h))
        return widen(self.out(F.silu(h))).view(*x.shape, -1)


class _MaskedLinear(nn.Linear):
    """A linear layer whose weights are used where a mask `out in` is true."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps `b in` to `b out`."""
        return F.linear(x, self.weight * self.mask, self.bias)
