r"""Fréchet distance between two sets of features, each modelled as a Gaussian.

    FD = |m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1 C_2)^(1/2)
    tr (C_1 C_2)^(1/2) = |F_1^T F_2|_*        for any factors C = F F^T

The nuclear norm |.|_* is the sum of singular values. F is the Cholesky factor if the covariance has full rank.
Otherwise it consists of the scaled eigenvectors of the correlations, without those whose eigenvalues are non-zero only
by rounding; given n <= d samples, it is the centred data, X_c^T / sqrt(n - 1). `sqrtm` of the product would be slower
and, for singular covariances, wrong in the fifth digit.

Shape letters: n samples, d features, r rank.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import reduce
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.moments import Gaussian, Moments
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import PositiveInt, Score, checked

__all__ = [
    "Factor",
    "FrechetDistance",
    "Side",
    "factor",
    "compute_distance",
    "frechet_distance",
    "list_groups",
    "warn_of_rank",
]

_EPS = torch.finfo(torch.float64).eps
_ROUNDING = 1e-12  # error of a distance, relative to tr C
_INDEFINITE = 1e-6  # negative eigenvalue of a covariance relative to its largest: rounding of float32 statistics

Statistics = Gaussian | Moments | Tensor


class Factor(NamedTuple):
    """A Gaussian, as its mean, `d`, and F, `d r`, with C = F F^T; log |det F| if F is a Cholesky factor."""

    mean: Tensor
    columns: Tensor
    log_det: float | None = None


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """Computes the Fréchet distance between two sets: features, `n d`, their moments, or mean and covariance.

    Warns if a set has no more samples than features, because the distance is then far too high.

    Raises:
        ValueError: If a set has fewer than two samples, the numbers of features differ, or a given covariance is not
            positive semi-definite.
        ArithmeticError: If the distance is more negative than rounding explains.

    Examples:
        Two samples at 0 and 2, and the same moved by 3: equal covariances, means 3 apart.

        >>> x = torch.tensor([[0.0], [2.0]])
        >>> round(frechet_distance(x, x + 3), 12)
        9.0
    """
    for one in (a, b):
        count, dim = (one.shape[0], one.shape[-1]) if isinstance(one, Tensor) else (one.count, len(one.mean))
        for text in warn_of_rank("a set", count, dim):
            warnings.warn(text, stacklevel=2)
    return compute_distance(factor(a), factor(b))


def factor(statistics: Statistics) -> Factor:
    """Computes the mean of a set and the factor F of its covariance.

    Raises:
        ValueError: If it has fewer than two samples, or its covariance is not positive semi-definite.
    """
    if isinstance(statistics, Tensor):
        if statistics.ndim == 2 and 2 <= len(statistics) <= statistics.shape[1]:
            return _factor_samples(statistics.detach().to("cpu", torch.float64))
        statistics = Moments.from_samples(statistics)
    gaussian = statistics.to_gaussian() if isinstance(statistics, Moments) else statistics
    dim = len(gaussian.mean)
    if gaussian.count is None or gaussian.count > dim:
        columns, failed = torch.linalg.cholesky_ex(gaussian.covariance)
        pivots = columns.diagonal().square()
        if not failed and bool((pivots > dim * _EPS * gaussian.covariance.diagonal()).all()):
            return Factor(gaussian.mean, columns, float(pivots.log().sum()) / 2)
    return Factor(gaussian.mean, _decompose(gaussian.covariance, gaussian.count))


def compute_distance(a: Factor, b: Factor) -> float:
    """Computes the Fréchet distance between two Gaussians.

    Raises:
        ValueError: If the numbers of features differ.
        ArithmeticError: If the distance is more negative than rounding explains.
    """
    if len(a.mean) != len(b.mean):
        raise ValueError(f"frechet_distance expects sets of as many features, got {len(a.mean)} and {len(b.mean)}")
    traces = float(a.columns.square().sum()), float(b.columns.square().sum())
    log_det = None if a.log_det is None or b.log_det is None else a.log_det + b.log_det
    norm = _compute_nuclear_norm(a.columns.T @ b.columns, log_det)
    distance = float((a.mean - b.mean).square().sum()) + sum(traces) - 2 * norm
    if not distance >= -_ROUNDING * max(traces):
        raise ArithmeticError(f"frechet_distance expects at least 0 within rounding, got {distance} of {sum(traces)}")
    return distance


def warn_of_rank(name: str, count: int | None, dim: int) -> tuple[str, ...]:
    """Returns a warning if there are too few samples for a covariance of full rank in `dim` dimensions."""
    if count is None or count > dim:
        return ()
    return (f"{name} has {count} samples of {dim} features: its covariance is singular and the distance far too high",)


Side = list[Moments] | Gaussian
"""What is known of a set: the moments of each group of samples, or given statistics instead."""


@checked
class FrechetDistance(Streaming[Side]):
    """Fréchet distance between the Gaussians of two sets of features; with Inception's features it is the FID.

    The standard error is the delete-a-group jackknife's, one set at a time. It stores the moments of each group, O(G
    d^2).

    Between n samples each of the same distribution, the distance is above zero by a bias that falls as 1/n and that the
    error does not include, so only scores of equally many samples can be compared; `fd-infinity` extrapolates to 1/n =
    0, and `kd` has no such bias.

    References:
        GANs Trained by a Two Time-Scale Update Rule (Heusel et al., 2017), eq. 6, https://arxiv.org/abs/1706.08500

    Args:
        groups: Number G of groups of samples for the standard error. 1 gives no error and takes the least memory; None
            is 10 groups up to 1,024 features and 5 above (336 MB for two sets of 2,048 features; the error itself is
            then accurate to about a third).

    Raises:
        ValueError: If `groups` is not positive.

    Examples:
        >>> x = torch.tensor([[0.0], [2.0]])
        >>> round(FrechetDistance().compute(real=x, fake=x + 3)["FD"].value, 12)
        9.0
    """

    better: Literal["lower", "higher"] = "lower"
    fewest = 2

    def __init__(self, *, groups: PositiveInt | None = None) -> None:
        self.groups = groups

    def given(self, state: dict[str, Side], set: str, statistics: Gaussian) -> dict[str, Side]:
        """Adds the mean and covariance of a set instead of its samples; they are taken as exact."""
        return {**state, set: statistics}

    def update(
        self, state: dict[str, Side], set: str, values: Mapping[str, Tensor], indices: Tensor
    ) -> dict[str, Side]:
        """Returns the state, changed in place, with more samples of a set: `features`, `b d`.

        Raises:
            ValueError: If the shape differs from that of earlier samples or a value is not finite.
        """
        x = values["features"]
        if x.ndim != 2:
            raise ValueError(f"FrechetDistance expects features of shape (b, d), got {tuple(x.shape)}")
        groups = list_groups(state, set) or [Moments(x.shape[1]) for _ in range(self._choose_num(x.shape[1]))]
        group = assign_groups(indices, len(groups))
        for index, moments in enumerate(groups):
            moments.update(x[(group == index).to(x.device)])
        return {set: groups, **state}

    def add(self, a: Side, b: Side) -> Side:
        """Merges the moments of each group; given statistics replace them."""
        if isinstance(a, Gaussian) or isinstance(b, Gaussian):
            return a if isinstance(a, Gaussian) else b
        return [x.merge(y) for x, y in zip(a, b, strict=True)]

    def result(self, state: dict[str, Side], rng: Rng) -> dict[str, Score]:
        """Computes the score `FD`; `rng` is not used.

        Raises:
            ValueError: If a set is missing or has fewer than two samples.
        """
        sides = {name: self._make_gaussian(state, name) for name in self.sets}
        factors = {name: factor(side) for name, side in sides.items()}
        value = compute_distance(*factors.values())
        others = zip(self.sets, reversed(factors.values()), strict=True)
        variances = [_estimate_variance(value, state[name], other) for name, other in others]
        score = Score(
            value,
            standard_error(*variances),
            self.better,
            {name: side.count or 0 for name, side in sides.items()},
            settings={"groups": self._choose_num(len(sides["real"].mean))},
            warnings=tuple(t for name, side in sides.items() for t in warn_of_rank(name, side.count, len(side.mean))),
        )
        return {"FD": score}

    def _choose_num(self, dim: int) -> int:
        return self.groups or (10 if dim <= 1024 else 5)

    def _make_gaussian(self, state: dict[str, Side], name: str) -> Gaussian:
        side = self.find(state, name)
        if isinstance(side, Gaussian):
            return side
        return reduce(Moments.merge, [moments for moments in side if moments.count] or side).to_gaussian()


def list_groups(state: Mapping[str, Side], name: str) -> list[Moments]:
    """Lists the groups of a set's samples; there are none if statistics are given instead."""
    side = state.get(name, [])
    return side if isinstance(side, list) else []


def _estimate_variance(value: float, side: Side, other: Factor) -> float | None:
    """The jackknife variance over the groups of one set; no group of the other set is left out."""
    if isinstance(side, Gaussian):
        return 0.0
    groups = [moments for moments in side if moments.count]
    if sum(m.count for m in groups) - max(m.count for m in groups) < 2:
        return None

    def without(index: int) -> float:
        return compute_distance(factor(reduce(Moments.merge, [*groups[:index], *groups[index + 1 :]])), other)

    return compute_variance(value, without, (moments.count for moments in groups))


def _compute_nuclear_norm(x: Tensor, log_det: float | None) -> float:
    """The sum of singular values, from the eigenvalues of x^T x (twice as fast) if those are accurate enough.

    Independent errors e of the eigenvalues lambda change the sum by e sum(1 / (4 lambda))^(1/2). At most, e is eps
    lambda_1 (a quarter of that, as measured). The product of the eigenvalues, known from `log_det`, gives an estimate
    of e, though from one draw only: the sum of log lambda is wrong by e sum(1 / lambda^2)^(1/2). Both must be small.
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


def _factor_samples(x: Tensor) -> Factor:
    if not bool(torch.isfinite(x).all()):
        raise ValueError("frechet_distance expects finite features, got NaN or infinity")
    mean = x.mean(0)
    return Factor(mean, (x - mean).T / (len(x) - 1) ** 0.5)


def _decompose(covariance: Tensor, count: int | None) -> Tensor:
    """D V sqrt(lambda), `d r`, where V lambda V^T are the correlations of features with standard deviations D.

    Features without variance are left out. So are eigenvalues beyond the rank n - 1, and eigenvalues that rounding may
    have made non-zero; the most negative eigenvalue shows how large these can be.

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
