r"""A Gaussian of a width that is given: how far from the data a decoder's mean may be.

    nll = 1/2 sum (((x - out) / std)^2 + log (2 pi std^2))

A likelihood says what the decoder must emit, and what the output says of x: `nll` in nats a sample, the mean, a draw
(`modkit.kinds.Likelihood`). `constant` is what `nll` leaves out of -log p(x | z), in nats a value: here nothing.

Shape letters: b batch, as many other axes as x has.
"""

import math
from dataclasses import replace

from torch import Tensor

from modkit import Rng, TensorType
from modkit.precision import widen

__all__ = ["FixedGaussian"]


class FixedGaussian:
    """Gaussian of one fixed standard deviation, constants kept.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix C.2, https://arxiv.org/abs/1312.6114

    Args:
        x: Type of the data, continuous.
        std: The standard deviation of every value.

    Raises:
        ValueError: If `x` holds codes, or `std` is not positive.
    """

    constant = 0.0

    def __init__(self, x: TensorType, *, std: float = 0.1) -> None:
        if x.classes is not None:
            raise ValueError(f"FixedGaussian expects continuous data, got {x}")
        if std <= 0:
            raise ValueError(f"FixedGaussian expects std above 0, got {std}")
        self.x, self.std = x, std

    def out(self, x: TensorType) -> TensorType:
        """The mean, of x's shape and unbounded."""
        return replace(x, range=None)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log p(x | out) in nats, `b`."""
        error = (widen(x) - widen(out)) / self.std
        return 0.5 * (error.square() + math.log(2 * math.pi * self.std**2)).flatten(1).sum(1)

    def mean(self, out: Tensor) -> Tensor:
        """`out`, kept within x's range."""
        return out if self.x.range is None else out.clamp(*self.x.range)

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """`out` with its noise."""
        return out + self.std * rng.normal("likelihood", out)
