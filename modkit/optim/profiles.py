r"""Profiles of averages of the weights: how much the weights after each step count for in the average after n of them.

    avg_n = beta_n avg_{n-1} + (1 - beta_n) w_n

    exponential   beta_n = min(decay, (1 + n) / (10 + n))
    power         beta_n = (1 - 1/n)^(gamma + 1)
                  p(t) = (gamma + 1) t^gamma / n^(gamma + 1),  0 <= t <= n     the weights of step i count its integral
                                                                               from i - 1 to i
                  std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))            the variance of t / n

An exponential average has a fixed length, but at first, when it would be mostly the initialisation. A power average is
as long as a share of the steps so far. Averages of several widths, kept now and then, span those of any other width:

    sum_k c_k p_k closest to p in L2, of all with sum_k c_k = 1
    <p_a, p_b> = (g_a + 1) (g_b + 1) m^(g_a + g_b + 1) / ((g_a + g_b + 1) n_a^(g_a + 1) n_b^(g_b + 1))
    m = min(n_a, n_b),   g short for gamma

References:
    Analyzing and Improving the Training Dynamics of Diffusion Models (Karras et al., 2024), section 3 and appendix C,
    https://arxiv.org/abs/2312.02696
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple, Protocol

import numpy as np

from modkit.types import Range, checked

__all__ = ["Exponential", "Fit", "Power", "Profile", "Trace", "compute_product", "fit_profile"]

_CUTOFF = 1e-12  # of the singular values of a Gram matrix, beside the largest one: what is below is rounding


class Profile(Protocol):
    """Gives the share of an average that is kept at each of its updates."""

    def __call__(self, update: int) -> float:
        """Computes beta of an update, counted from 1."""
        ...


@checked
@dataclass(frozen=True)
class Exponential:
    """The profile of an exponential moving average with a warm-up.

    Args:
        decay: Share of the average that is kept at each update, in [0, 1).

    Raises:
        ValueError: If `decay` is out of range.

    Examples:
        >>> Exponential(0.9)(1) == 2 / 11, Exponential(0.9)(1000)
        (True, 0.9)
    """

    decay: Annotated[float, Range(0, below=1)]

    def __call__(self, update: int) -> float:
        """Computes beta of an update."""
        return min(self.decay, (1 + update) / (10 + update))


@checked
@dataclass(frozen=True)
class Power:
    """The profile of a power-function average.

    Args:
        std: Its standard deviation as a share of the updates so far, in (0, 1/sqrt(12)).

    Raises:
        ValueError: If `std` is out of range.

    Examples:
        >>> round(Power(0.1).gamma, 2), Power(0.1)(1)
        (6.94, 0.0)
    """

    std: Annotated[float, Range(above=0, below=12**-0.5)]
    gamma: float = field(init=False, compare=False)

    def __post_init__(self) -> None:
        inverse = self.std**-2  # std^2 (g + 2)^2 (g + 3) = g + 1, by powers of g; one root is positive
        object.__setattr__(self, "gamma", float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max()))

    def __call__(self, update: int) -> float:
        """Computes beta of an update."""
        return float((1 - 1 / update) ** (self.gamma + 1))


class Trace(NamedTuple):
    """A power-function average after a number of updates."""

    profile: Power
    updates: int


class Fit(NamedTuple):
    """The coefficients of kept averages, and the norm of what they lack of a profile, as a share of its own."""

    coefficients: list[float]
    error: float


def compute_product(a: Trace, b: Trace) -> float:
    """Computes the inner product of two power functions, over the time from 0.

    Examples:
        >>> compute_product(Trace(Power(0.1), 10), Trace(Power(0.1), 10)) > compute_product(
        ...     Trace(Power(0.1), 10), Trace(Power(0.1), 20)
        ... )
        True
    """
    (p, n), (q, m) = a, b
    least = math.log(min(n, m))
    logs = (p.gamma + 1) * (least - math.log(n)) + (q.gamma + 1) * (least - math.log(m)) - least
    return (p.gamma + 1) * (q.gamma + 1) / (p.gamma + q.gamma + 1) * math.exp(logs)


def fit_profile(kept: Sequence[Trace], wanted: Trace) -> Fit:
    """Fits a profile by those of kept averages, with coefficients that sum to 1.

    Args:
        kept: The kept averages, one at least.
        wanted: The average to make of them.

    Examples:
        >>> kept = [Trace(Power(std), updates) for updates in (50, 100) for std in (0.05, 0.1)]
        >>> fit = fit_profile(kept, kept[2])
        >>> [round(one, 6) + 0.0 for one in fit.coefficients], fit.error < 1e-6
        ([0.0, 0.0, 1.0, 0.0], True)
    """
    every = [*kept, wanted]
    gram = np.array([[compute_product(a, b) for b in every] for a in every])
    base = len(kept) - 1  # coefficients of the others count differences from this one
    others = [index for index in range(len(every)) if index != base]
    differences = (gram - gram[:, [base]] - gram[[base], :] + gram[base, base])[np.ix_(others, others)]
    scales = np.sqrt(np.maximum(differences.diagonal(), np.finfo(float).tiny))
    matrix = differences / np.outer(scales, scales)
    found = np.linalg.lstsq(matrix[:-1, :-1], matrix[:-1, -1], rcond=_CUTOFF)[0]
    residual = np.append(-found, 1.0)
    error = math.sqrt(max(float(residual @ matrix @ residual), 0.0)) * float(scales[-1])
    found = found * scales[-1] / scales[:-1]
    return Fit([*found.tolist(), 1 - float(found.sum())], error / math.sqrt(gram[-1, -1]))
