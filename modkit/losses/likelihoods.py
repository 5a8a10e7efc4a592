r"""Likelihoods p(x | z): what a decoder must emit, and the distribution of x that its output stands for.

    mse        N(x; out, 1)                 nll = 1/2 sum (x - out)^2                      constant left out
    l1         Laplace(x; out, 1)           nll = sum |x - out|                            constant left out
    gaussian   N(x; mean, exp(logvar))      nll = 1/2 sum ((x - mean)^2 / exp(logvar) + logvar + log 2 pi)
    bernoulli  Bernoulli(t; sigmoid(out))   nll = -sum (t log p + (1 - t) log(1 - p)),     t = x's range as [0, 1]

Each `nll` is in nats a sample: a sum over the sample's elements, computed in float32 or wider. A draw from an unbounded
density may leave the range of x; a mean never does. `constant` is the part of -log p(x | z) that `nll` leaves out, in
nats a value of x; `levels` is the number of values of x whose probability, not density, Bernoulli gives.

Shape letters: b batch, c channels, h w spatial (as the type says).

References:
    Auto-Encoding Variational Bayes (Kingma and Welling, 2014), appendix C, https://arxiv.org/abs/1312.6114
    Simple and Effective VAE Training with Calibrated Decoders (Rybkin et al., 2021), section 3: the shared variance,
    https://arxiv.org/abs/2006.13202
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.precision import widen
from modkit.rng import Rng
from modkit.types import TensorType, checked

__all__ = ["L1", "MSE", "Bernoulli", "Gaussian"]

_LOGVAR = (-30.0, 20.0)
_LOG_TWO_PI = math.log(2 * math.pi)


class _FixedScale:
    """A density of fixed scale about `out`, its mean."""

    def __init__(self, x: TensorType) -> None:
        self._x = _check_continuous(type(self).__name__, x)

    def out(self, x: TensorType) -> TensorType:
        """The type that the decoder must emit: the mean, unbounded, in the shape of x."""
        return replace(x, range=None)

    def mean(self, out: Tensor) -> Tensor:
        """The mean: `out`, clamped to the range of x."""
        return _clamp(out, self._x)


class MSE(_FixedScale):
    """Gaussian of unit variance, constant left out: half the squared error.

    Raises:
        ValueError: If `x` is codes.

    Examples:
        >>> likelihood = MSE(TensorType((2,)))
        >>> likelihood.nll(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 3.0]]))
        tensor([2.])
    """

    constant = _LOG_TWO_PI / 2

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """Half the squared error, `b`."""
        return _sum((widen(x) - widen(out)).square() / 2)

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Draws x: `out` plus standard normal noise."""
        out = widen(out)
        return out + rng.normal("likelihood", out)


class L1(_FixedScale):
    """Laplace of unit scale, constant left out: the absolute error.

    Raises:
        ValueError: If `x` is codes.

    Examples:
        >>> likelihood = L1(TensorType((2,)))
        >>> likelihood.nll(torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 3.0]]))
        tensor([2.])
    """

    constant = math.log(2)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """The absolute error, `b`."""
        return _sum((widen(x) - widen(out)).abs())

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Draws x: `out` plus Laplace noise, by the inverse of its distribution function."""
        out = widen(out)
        u = rng.uniform("likelihood", out) - 0.5
        tail = (1 - 2 * u.abs()).clamp_min(2**-24)  # u is a multiple of 2^-24 and may be -1/2
        return out - u.sign() * tail.log()


@checked
class Gaussian(nn.Module):
    """Gaussian with a learned variance, constants included.

    Args:
        variance: `shared`: one learned variance for all elements, at first 1, whose logarithm moves by about the
            learning rate a step; `element`: the decoder emits a mean and a log-variance for each element, in twice the
            channels.

    Raises:
        ValueError: If `variance` is unknown, or `x` is codes or, with `element`, a scalar.

    Examples:
        >>> likelihood = Gaussian(TensorType((3, 8, 8)), variance="element")
        >>> likelihood.out(TensorType((3, 8, 8))).shape
        (6, 8, 8)
        >>> Gaussian(TensorType((2,))).nll(torch.zeros(1, 2), torch.zeros(1, 2)).detach()  # log 2 pi
        tensor([1.8379])
    """

    constant = 0.0

    def __init__(self, x: TensorType, *, variance: Literal["shared", "element"] = "shared") -> None:
        super().__init__()
        if variance == "element" and not x.shape:
            raise ValueError(f"Gaussian with a variance for each element expects channels to double, got {x}")
        self._x = _check_continuous("Gaussian", x)
        self.logvar = nn.Parameter(torch.zeros(())) if variance == "shared" else None

    def out(self, x: TensorType) -> TensorType:
        """The type that the decoder must emit: the mean, unbounded; with `element`, mean and log-variance."""
        if self.logvar is not None:
            return replace(x, range=None)
        return TensorType((2 * x.shape[0], *x.shape[1:]))

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log N(x; mean, exp(logvar)), `b`; log-variances are clamped to [-30, 20]."""
        mean, logvar = self._split_statistics(out)
        return _sum((widen(x) - mean).square() * (-logvar).exp() + logvar + _LOG_TWO_PI) / 2

    def mean(self, out: Tensor) -> Tensor:
        """The mean, clamped to the range of x."""
        return _clamp(out if self.logvar is not None else out.chunk(2, dim=1)[0], self._x)

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Draws x: the mean plus noise of the variance."""
        mean, logvar = self._split_statistics(out)
        return mean + (logvar / 2).exp() * rng.normal("likelihood", mean)

    def _split_statistics(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance, broadcastable to x."""
        out = widen(out)
        mean, logvar = (out, self.logvar) if self.logvar is not None else out.chunk(2, dim=1)
        return mean, logvar.clamp(*_LOGVAR)


class Bernoulli:
    """Bernoulli on the range of x mapped to [0, 1]; `out` holds logits.

    A value of x between the ends of the range counts in part as either end; there is then no bound on log p(x).

    Raises:
        ValueError: If `x` is codes or has no range.

    Examples:
        >>> likelihood = Bernoulli(TensorType((2,), range=(-1, 1)))
        >>> likelihood.nll(torch.zeros(1, 2), torch.tensor([[-1.0, 1.0]]))  # 2 log 2
        tensor([1.3863])
        >>> likelihood.mean(torch.zeros(1, 2))
        tensor([[0., 0.]])
    """

    constant = 0.0
    levels = 2

    def __init__(self, x: TensorType) -> None:
        if x.range is None:
            raise ValueError(f"Bernoulli expects x with a range, whose ends are its two values, got {x}")
        self._low, self._high = x.range

    def out(self, x: TensorType) -> TensorType:
        """The type that the decoder must emit: logits, unbounded, in the shape of x."""
        return replace(x, range=None)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """The cross-entropy, `b`."""
        out = widen(out)
        target = ((widen(x) - self._low) / (self._high - self._low)).to(out.dtype)
        return _sum(F.binary_cross_entropy_with_logits(out, target, reduction="none"))

    def mean(self, out: Tensor) -> Tensor:
        """The mean: the probability, mapped back to the range of x."""
        return self._low + (self._high - self._low) * out.sigmoid()

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Draws x: one of the two ends of its range for each element."""
        out = widen(out)
        ones = rng.uniform("likelihood", out) < out.sigmoid()
        return torch.where(ones, self._high, self._low).to(out.dtype)


def _check_continuous(owner: str, x: TensorType) -> TensorType:
    if x.classes is not None:
        raise ValueError(f"{owner} expects continuous x, got {x}")
    return x


def _sum(nll: Tensor) -> Tensor:
    """Sums over each sample's elements, `b`."""
    return nll.reshape(len(nll), -1).sum(1)


def _clamp(mean: Tensor, x: TensorType) -> Tensor:
    return mean if x.range is None else mean.clamp(*x.range)
