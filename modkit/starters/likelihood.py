r"""A Gaussian likelihood with a fixed standard deviation around the decoder's output.

    nll = 1/2 sum (((x - out) / std)^2 + log (2 pi std^2))

A likelihood states what the decoder must emit and defines p(x | z) by that output: `nll` in nats per sample, the mean
and samples (`modkit.kinds.Likelihood`). `constant` is the term that `nll` omits from -log p(x | z), in nats per value;
    here
it is zero.

Shape letters: b batch; all other axes are those of x.
"""

import math
from dataclasses import replace

from torch import Tensor

from modkit import Rng, TensorType
from modkit.precision import widen
from modkit.types import PositiveFloat, checked

__all__ = ["FixedGaussian"]


@checked
class FixedGaussian:
    """A Gaussian with a fixed standard deviation, including all constants.

    References:
        Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix C.2, https://arxiv.org/abs/1312.6114

    Args:
        x: Type of the data, continuous.
        std: The standard deviation of every value.

    Raises:
        ValueError: If `x` holds codes, or `std` is not positive.
    """

    constant = 0.0

    def __init__(self, x: TensorType, *, std: PositiveFloat = 0.1) -> None:
        if x.classes is not None:
            raise ValueError(f"FixedGaussian expects continuous data, got {x}")
        self.x, self.std = x, std

    def out(self, x: TensorType) -> TensorType:
        """Returns the type that the decoder must emit: the mean, unbounded and of x's shape."""
        return replace(x, range=None)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """Computes -log p(x | out) in nats, `b`."""
        error = (widen(x) - widen(out)) / self.std
        return 0.5 * (error.square() + math.log(2 * math.pi * self.std**2)).flatten(1).sum(1)

    def mean(self, out: Tensor) -> Tensor:
        """Returns the mean, clamped to x's range."""
        return out if self.x.range is None else out.clamp(*self.x.range)

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Draws x, the mean plus noise."""
        return out + self.std * rng.normal("likelihood", out)
