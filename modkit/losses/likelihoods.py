r"""Likelihoods p(x | z): what a decoder must emit, and what its output says of x.

    mse        N(x; out, 1)                 nll = 1/2 sum (x - out)^2                      constant left out
    l1         Laplace(x; out, 1)           nll = sum |x - out|                            constant left out
    gaussian   N(x; mean, exp(logvar))      nll = 1/2 sum ((x - mean)^2 / exp(logvar) + logvar + log 2 pi)
    bernoulli  Bernoulli(t; sigmoid(out))   nll = -sum (t log p + (1 - t) log(1 - p)),     t = x's range as [0, 1]

All are in nats a sample: summed over a sample's elements, neither averaged nor divided, in float32 at least. A draw of
an unbounded density may leave x's range; a mean never does. `constant` is what `nll` leaves out of -log p(x | z), in
nats a value of x; Bernoulli has none, since it is no density of what lies between its two values.

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
from modkit.types import TensorType

__all__ = ["L1", "MSE", "Bernoulli", "Gaussian"]

_LOGVAR = (-30.0, 20.0)
_LOG_TWO_PI = math.log(2 * math.pi)


class MSE:
    """Gaussian of unit variance, constant left out: half the squared error."""

    constant = _LOG_TWO_PI / 2

    def __init__(self, x: TensorType) -> None:
        self._x = _continuous("MSE", x)

    def out(self, x: TensorType) -> TensorType:
        """The mean, unbounded, of x's shape."""
        return replace(x, range=None)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """Half the squared error, `b`."""
        return _total((widen(x) - widen(out)).square() / 2)

    def mean(self, out: Tensor) -> Tensor:
        """`out`, clamped to x's range."""
        return _clamped(out, self._x)

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """`out` with standard normal noise."""
        out = widen(out)
        return out + rng.normal("likelihood", out)


class L1:
    """Laplace of unit scale, constant left out: the absolute error."""

    constant = math.log(2)

    def __init__(self, x: TensorType) -> None:
        self._x = _continuous("L1", x)

    def out(self, x: TensorType) -> TensorType:
        """The mean, unbounded, of x's shape."""
        return replace(x, range=None)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """The absolute error, `b`."""
        return _total((widen(x) - widen(out)).abs())

    def mean(self, out: Tensor) -> Tensor:
        """`out`, clamped to x's range."""
        return _clamped(out, self._x)

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """`out` with Laplace noise, by its inverse distribution function."""
        out = widen(out)
        u = rng.uniform("likelihood", out) - 0.5
        tail = (1 - 2 * u.abs()).clamp_min(2**-24)  # u is a multiple of 2^-24 and may be -1/2
        return out - u.sign() * tail.log()


class Gaussian(nn.Module):
    """Gaussian of learned variance, constants kept.

    Args:
        variance: `shared`: one learned variance for all elements; `element`: the decoder emits a mean and a
            log-variance for each, as twice the channels.

    Raises:
        ValueError: If `variance` is unknown, or `x` is codes or, with `element`, a scalar.
    """

    constant = 0.0

    def __init__(self, x: TensorType, *, variance: Literal["shared", "element"] = "shared") -> None:
        super().__init__()
        if variance not in ("shared", "element"):
            raise ValueError(f"Gaussian expects variance 'shared' or 'element', got {variance!r}")
        if variance == "element" and not x.shape:
            raise ValueError(f"Gaussian with a variance for each element expects channels to double, got {x}")
        self._x = _continuous("Gaussian", x)
        self.logvar = nn.Parameter(torch.zeros(())) if variance == "shared" else None

    def out(self, x: TensorType) -> TensorType:
        """The mean, unbounded; with `element`, mean and log-variance along the channels."""
        if self.logvar is not None:
            return replace(x, range=None)
        return TensorType((2 * x.shape[0], *x.shape[1:]))

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """-log N(x; mean, exp(logvar)), `b`; log-variances are clamped to [-30, 20]."""
        mean, logvar = self._statistics(out)
        return _total((widen(x) - mean).square() * (-logvar).exp() + logvar + _LOG_TWO_PI) / 2

    def mean(self, out: Tensor) -> Tensor:
        """The mean, clamped to x's range."""
        return _clamped(out if self.logvar is not None else out.chunk(2, dim=1)[0], self._x)

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """The mean with noise of the variance."""
        mean, logvar = self._statistics(out)
        return mean + (logvar / 2).exp() * rng.normal("likelihood", mean)

    def _statistics(self, out: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, logvar), broadcastable to x."""
        out = widen(out)
        mean, logvar = (out, self.logvar) if self.logvar is not None else out.chunk(2, dim=1)
        return mean, logvar.clamp(*_LOGVAR)


class Bernoulli:
    """Bernoulli on x's range mapped to [0, 1]; `out` are logits. Values between count as shares of both.

    Raises:
        ValueError: If `x` is codes or has no range.
    """

    def __init__(self, x: TensorType) -> None:
        if x.range is None:
            raise ValueError(f"Bernoulli expects x with a range, whose ends are its two values, got {x}")
        self._low, self._high = x.range

    def out(self, x: TensorType) -> TensorType:
        """Logits, unbounded, of x's shape."""
        return replace(x, range=None)

    def nll(self, out: Tensor, x: Tensor) -> Tensor:
        """The cross-entropy, `b`."""
        out = widen(out)
        target = ((widen(x) - self._low) / (self._high - self._low)).to(out.dtype)
        return _total(F.binary_cross_entropy_with_logits(out, target, reduction="none"))

    def mean(self, out: Tensor) -> Tensor:
        """The probability, mapped back to x's range."""
        return self._low + (self._high - self._low) * out.sigmoid()

    def sample(self, out: Tensor, rng: Rng) -> Tensor:
        """Either end of x's range."""
        out = widen(out)
        ones = rng.uniform("likelihood", out) < out.sigmoid()
        return torch.where(ones, self._high, self._low).to(out.dtype)


def _continuous(owner: str, x: TensorType) -> TensorType:
    if x.classes is not None:
        raise ValueError(f"{owner} expects continuous x, got {x}")
    return x


def _total(nll: Tensor) -> Tensor:
    """The sum over each sample's elements, `b`."""
    return nll.reshape(len(nll), -1).sum(1)


def _clamped(mean: Tensor, x: TensorType) -> Tensor:
    return mean if x.range is None else mean.clamp(*x.range)
