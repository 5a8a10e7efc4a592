r"""Fréchet distance between two sets of features, each taken for a Gaussian.

    FD = |m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1 C_2)^(1/2)
    tr (C_1 C_2)^(1/2) = |F_1^T F_2|_*        for any factors C = F F^T

The nuclear norm |.|_* is the sum of singular values. F is the Cholesky factor where the covariance has full rank, else
the scaled eigenvectors of its correlations, without those that rounding alone has made non-zero; of n <= d samples at
hand it is the centred data, X_c^T / sqrt(n - 1). `sqrtm` of the product is slower and, on singular covariances, wrong
in the fifth digit.

Shape letters: n samples, d features, r rank.

References:
    GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), eq. 6, https://arxiv.org/abs/1706.08500
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, jackknife_variance, standard_error
from modkit.metrics.moments import Gaussian, Moments
from modkit.rng import Rng
from modkit.types import Score

__all__ = [
    "Factor",
    "FrechetDistance",
    "FrechetState",
    "factor",
    "factor_distance",
    "frechet_distance",
    "warn_of_rank",
]

_EPS = torch.finfo(torch.float64).eps
_ROUNDING = 1e-12  # what a distance may be off by, in tr C
_INDEFINITE = 1e-6  # a covariance's negative eigenvalue, in its largest: what float32 statistics are off by

Statistics = Gaussian | Moments | Tensor


class Factor(NamedTuple):
    """A Gaussian as its mean, `d`, and F, `d r`, with C = F F^T; log |det F| where F is square."""

    mean: Tensor
    columns: Tensor
    log_det: float | None = None


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The Fréchet distance between two sets: features, `n d`, their moments, or mean and covariance.

    Warns where a set has no more samples than features, since the distance is then far too high.

    Raises:
        ValueError: If a set has fewer than two samples, the numbers of features differ, or a given covariance is not
            positive semi-definite.
        ArithmeticError: If the distance is more negative than rounding explains.
    """
    for one in (a, b):
        count, dim = (one.shape[0], one.shape[-1]) if isinstance(one, Tensor) else (one.count, len(one.mean))
        for text in warn_of_rank("a set", count, dim):
            warnings.warn(text, stacklevel=2)
    return factor_distance(factor(a), factor(b))


def factor(statistics: Statistics) -> Factor:
    """The mean of a set and the factor F of its covariance.

    Raises:
        ValueError: If it has fewer than two samples or is not positive semi-definite.
    """
    if isinstance(statistics, Tensor):
        if statistics.ndim == 2 and 2 <= len(statistics) <= statistics.shape[1]:
            return _data_factor(statistics.detach().to("cpu", torch.float64))
        statistics = Moments.of(statistics)
    gaussian = statistics.gaussian() if isinstance(statistics, Moments) else statistics
    dim = len(gaussian.mean)
    if gaussian.count is None or gaussian.count > dim:
        columns, failed = torch.linalg.cholesky_ex(gaussian.covariance)
        pivots = columns.diagonal().square()
        if not failed and bool((pivots > dim * _EPS * gaussian.covariance.diagonal()).all()):
            return Factor(gaussian.mean, columns, float(pivots.log().sum()) / 2)
    return Factor(gaussian.mean, _eigenvectors(gaussian.covariance, gaussian.count))


def factor_distance(a: Factor, b: Factor) -> float:
    """The Fréchet distance between two Gaussians.

    Raises:
        ValueError: If the numbers of features differ.
        ArithmeticError: If the distance is more negative than rounding explains.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"frechet_distance expects one number of features, got {len(a.mean)} and {len(b.mean)}")
    traces = float(a.columns.square().sum()), float(b.columns.square().sum())
    log_det = None if a.log_det is None or b.log_det is None else a.log_det + b.log_det
    norm = _nuclear_norm(a.columns.T @ b.columns, log_det)
    distance = float((a.mean - b.mean).square().sum()) + sum(traces) - 2 * norm
    if not distance >= -_ROUNDING * max(traces):
        raise ArithmeticError(f"frechet_distance expects at least 0 within rounding, got {distance} of {sum(traces)}")
    return distance


def warn_of_rank(name: str, count: int | None, dim: int) -> tuple[str, ...]:
    """What a reader must know where `count` samples can't fill `dim` dimensions; else nothing."""
    if count is None or count > dim:
        return ()
    return (f"{name} has {count} samples of {dim} features: its covariance is singular and the distance far too high",)


@dataclass
class FrechetState:
    """Moments of each group of samples by set, and statistics that were given in a set's place."""

    groups: dict[str, list[Moments]] = field(default_factory=dict)
    given: dict[str, Gaussian] = field(default_factory=dict)


class FrechetDistance:
    """Distance between the Gaussians of two sets of features: FID where these are Inception's.

    Its standard error is the delete-a-group jackknife's, one set at a time. Moments are kept for each group, O(G d^2).

    References:
        GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), eq. 6, https://arxiv.org/abs/1706.08500

    Args:
        groups: Number G of groups of samples for the standard error; 1: no error, and the least memory. None: 10 up to
            1,024 features, 5 above (336 MB for two sets at 2,048; the error is then itself known to a third).

    Raises:
        ValueError: If `groups` is not positive.
    """

    needs = ("features",)
    sets = ("real", "fake")
    better: Literal["lower"] = "lower"

    def __init__(self, *, groups: int | None = None) -> None:
        if groups is not None and groups < 1:
            raise ValueError(f"FrechetDistance expects groups of at least 1, got {groups}")
        self.groups = groups

    def init(self) -> FrechetState:
        """No samples."""
        return FrechetState()

    def given(self, state: FrechetState, set: str, statistics: Gaussian) -> FrechetState:
        """The state with mean and covariance in the place of a set's samples, which then have no error."""
        state.given[set] = statistics
        return state

    def update(self, state: FrechetState, set: str, values: Mapping[str, Tensor], indices: Tensor) -> FrechetState:
        """The state, in place, with more samples of a set: `features`, `b d`.

        Raises:
            ValueError: If the shape is another than before or a value is not finite.
        """
        x = values["features"]
        if x.ndim != 2:
            raise ValueError(f"FrechetDistance expects features of shape (b, d), got {tuple(x.shape)}")
        groups = state.groups.setdefault(set, [Moments(x.shape[1]) for _ in range(self._num(x.shape[1]))])
        group = assign_groups(indices, len(groups))
        for index, moments in enumerate(groups):
            moments.update(x[(group == index).to(x.device)])
        return state

    def merge(self, a: FrechetState, b: FrechetState) -> FrechetState:
        """The state of both, which are used up."""
        merged = FrechetState({**b.groups, **a.groups}, {**b.given, **a.given})
        for name in a.groups.keys() & b.groups.keys():
            merged.groups[name] = [x.merge(y) for x, y in zip(a.groups[name], b.groups[name], strict=True)]
        return merged

    def result(self, state: FrechetState, rng: Rng) -> dict[str, Score]:
        """The score `FD`; draws nothing.

        Raises:
            ValueError: If a set is missing or has fewer than two samples.
        """
        real, fake = self._side(state, "real"), self._side(state, "fake")
        factors = factor(real), factor(fake)
        value = factor_distance(*factors)
        variances = (
            _variance(value, state.groups.get("real", []), "real" in state.given, factors[1]),
            _variance(value, state.groups.get("fake", []), "fake" in state.given, factors[0]),
        )
        sides = {"real": real, "fake": fake}
        score = Score(
            value,
            standard_error(*variances),
            self.better,
            {name: side.count or 0 for name, side in sides.items()},
            settings={"groups": self._num(len(real.mean))},
            warnings=tuple(t for name, side in sides.items() for t in warn_of_rank(name, side.count, len(side.mean))),
        )
        return {"FD": score}

    def _num(self, dim: int) -> int:
        return self.groups or (10 if dim <= 1024 else 5)

    def _side(self, state: FrechetState, name: str) -> Gaussian:
        if name in state.given:
            return state.given[name]
        groups = [moments for moments in state.groups.get(name, []) if moments.count]
        if not groups:
            raise ValueError(f"FrechetDistance expects samples of {name!r}, got none")
        return _merge(groups).gaussian()


def _variance(value: float, groups: Sequence[Moments], given: bool, other: Factor) -> float | None:
    """The jackknife variance over one set's groups, the other set being whole."""
    if given:
        return 0.0
    groups = [moments for moments in groups if moments.count]
    if len(groups) < 2 or min(sum(m.count for m in groups) - one.count for one in groups) < 2:
        return None
    left_out = []
    for index in range(len(groups)):
        rest = _merge([*groups[:index], *groups[index + 1 :]])
        left_out.append(factor_distance(factor(rest), other))
    return jackknife_variance(value, left_out, [moments.count for moments in groups])


def _merge(groups: Sequence[Moments]) -> Moments:
    merged = groups[0]
    for moments in groups[1:]:
        merged = merged.merge(moments)
    return merged


def _nuclear_norm(x: Tensor, log_det: float | None) -> float:
    """The sum of singular values: roots of the eigenvalues of x^T x where these give as many digits, in half the time.

    Eigenvalues off by some e leave the sum off by e sum(1 / (4 lambda))^(1/2), errors being independent. At most, e is
    eps lambda_1 (a quarter of it, as measured). The eigenvalues' product, known from `log_det`, shows e itself, if only
    by one draw: the sum of log lambda is off by e sum(1 / lambda^2)^(1/2). Both must be small.
    """
    if log_det is not None:
        eigenvalues = torch.linalg.eigvalsh(x.T @ x)
        if eigenvalues[0] > 0:
            total = float(eigenvalues.sqrt().sum())
            share = float((1 / (4 * eigenvalues)).sum().sqrt()) / total
            most = _EPS * float(eigenvalues[-1])
            shown = abs(float(eigenvalues.log().sum()) - 2 * log_det) / float(eigenvalues.pow(-2).sum().sqrt())
            if most * share <= 2 * _ROUNDING and shown * share <= _ROUNDING / 10:
                return total
    return float(torch.linalg.svdvals(x).sum())


def _data_factor(x: Tensor) -> Factor:
    if not bool(torch.isfinite(x).all()):
        raise ValueError("frechet_distance expects finite features, got NaN or infinity")
    mean = x.mean(0)
    return Factor(mean, (x - mean).T / (len(x) - 1) ** 0.5)


def _eigenvectors(covariance: Tensor, count: int | None) -> Tensor:
    """D V sqrt(lambda), `d r`, of the correlations V lambda V^T between features of standard deviations D.

    Dead features drop out; so do eigenvalues past the rank n - 1, and those within rounding of zero, which the most
    negative one gauges.

    Raises:
        ValueError: If the covariance is not positive semi-definite.
    """
    scale = covariance.diagonal().clamp_min(0).sqrt()
    live = scale > 0
    inner = covariance[live][:, live] / scale[live] / scale[live, None]
    eigenvalues, vectors = torch.linalg.eigh(inner)
    dead = covariance[~live]
    largest, lowest = (float(eigenvalues[-1]), float(eigenvalues[0])) if len(eigenvalues) else (0.0, 0.0)
    if lowest < -_INDEFINITE * largest or (len(dead) and float(dead.abs().max()) > 0):
        received = f"an eigenvalue of {lowest:g} beside {largest:g}, or covariances without variance"
        raise ValueError(f"frechet_distance expects positive semi-definite covariances, got {received}")
    kept = eigenvalues > max(len(covariance) * _EPS * largest, -lowest)
    if count is not None:
        kept[: max(len(kept) - (count - 1), 0)] = False
    columns = covariance.new_zeros(len(covariance), int(kept.sum()))
    columns[live] = vectors[:, kept] * eigenvalues[kept].sqrt() * scale[live, None]
    return columns
