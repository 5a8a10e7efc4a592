r"""1-Wasserstein distances between two sets of samples: how far one must be moved to match the other.

    W1 = min_pi 1/n sum_i |x_i - y_pi(i)|,                             pi over permutations, n samples in each set
    sliced W1 = E_u W1(u . x, u . y) = E_u int |F_u(t) - G_u(t)| dt,   u uniform on the unit sphere

F_u and G_u are the distribution functions of the projections on u, for any numbers of samples. They follow from sorting
the projections, and so do those without a group of samples: the jackknife does not sort again.

Shape letters: b batch, n m samples, d features, u directions, g groups, v variants (all samples, all but one group).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.store import StoredMetric, Stores
from modkit.rng import Rng
from modkit.types import PositiveInt, Score, checked

__all__ = ["SlicedWasserstein", "Wasserstein", "sliced_wasserstein", "wasserstein"]

_GROUPS = 10
_MOST = 5000  # samples of each set: 200 MB of costs, and time that grows with the cube
_TILE = 2**18  # projections at once
_ROWS = 4096  # samples at once in float64


def wasserstein(*, real: Tensor, fake: Tensor) -> float:
    """Computes the exact distance between two sets of the same size, `n d`, by optimal assignment in float64.

    Raises:
        ValueError: If shapes or counts do not match, there are more than 5,000 samples, or a value is not finite.

    Examples:
        >>> wasserstein(real=torch.tensor([[0.0], [1.0]]), fake=torch.tensor([[4.0], [3.0]]))
        3.0
    """
    _check("wasserstein", real, fake)
    _check_counts("wasserstein", len(real), len(fake))
    return _assign(real.detach().cpu(), fake.detach().cpu())


def sliced_wasserstein(*, real: Tensor, fake: Tensor, directions: Tensor) -> float:
    """Computes the mean distance between projections of samples, `n d` and `m d`, on `directions`, `u d`.

    Directions may have any length.

    Raises:
        ValueError: If shapes do not match, there is no sample, or a value is not finite.

    Examples:
        A shift by (3, 0), seen along either axis:

        >>> x = torch.zeros(4, 2)
        >>> sliced_wasserstein(real=x, fake=x + torch.tensor([3.0, 0.0]), directions=torch.eye(2))
        1.5
    """
    _check("sliced_wasserstein", real, fake)
    if directions.ndim != 2 or directions.shape[1] != real.shape[1]:
        received = f"got shape {tuple(directions.shape)}"
        raise ValueError(f"sliced_wasserstein expects directions of shape (u, {real.shape[1]}), {received}")
    one = [torch.zeros(len(rows), dtype=torch.int64) for rows in (real, fake)]
    return float(_slice([real.detach().cpu(), fake.detach().cpu()], one, directions.detach().cpu(), num_groups=1)[0])


@checked
class SlicedWasserstein(StoredMetric):
    """Sliced 1-Wasserstein distance: the mean, over random directions, of the distance between projections.

    It has the scale of the features. Between two sets of one distribution it falls as the numbers of samples grow, so
    compare scores of equal numbers only. The error is the delete-a-group jackknife's over both sets (up to 1.7 times
    too large for equal distributions, in trials); it does not include the choice of directions.

    References:
        Sliced and Radon Wasserstein Barycenters of Measures (Bonneel et al., 2015), section 3,
        https://doi.org/10.1007/s10851-014-0506-3

    Args:
        num: Number of directions.

    Raises:
        ValueError: If there is no direction.

    Examples:
        In one dimension every direction shows the whole shift:

        >>> x = torch.zeros(20, 1)
        >>> SlicedWasserstein(num=4).compute(real=x, fake=x + 3)["sliced W1"].value
        3.0
    """

    better: Literal["lower", "higher"] = "lower"

    def __init__(self, *, num: PositiveInt = 256) -> None:
        self.num = num

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the score `sliced W1`; `rng` draws the directions.

        Raises:
            ValueError: If a set has fewer than two samples or the numbers of features differ.
        """
        rows = self.rows(state)
        values = [values for _, values in rows.values()]
        _check(type(self).__name__, *values)
        groups = [assign_groups(indices, _GROUPS) for indices, _ in rows.values()]
        directions = rng.normal("directions", torch.empty(self.num, values[0].shape[1], dtype=torch.float64))
        value, *left_out = _slice(values, groups, directions, num_groups=_GROUPS).tolist()
        variances = [
            compute_variance(value, out.__getitem__, torch.bincount(owners, minlength=_GROUPS).tolist())
            for out, owners in zip((left_out[:_GROUPS], left_out[_GROUPS:]), groups, strict=True)
        ]
        counts = {name: len(indices) for name, (indices, _) in rows.items()}
        return {"sliced W1": Score(value, standard_error(*variances), "lower", counts, settings={"num": self.num})}


class Wasserstein(StoredMetric):
    """Exact 1-Wasserstein distance by optimal assignment, between sets of the same size, at most 5,000 samples each.

    Between two sets of one distribution it falls as the number of samples grows, and slowly in many dimensions, so
    compare scores of equal numbers only. The error is the spread over ten disjoint subsets of each set, chosen by a
    hash of the index, times the square root of a subset's share (.6 to 1.7 times the true error, in trials); a
    jackknife would take twenty more assignments.

    References:
        Computational Optimal Transport (Peyré & Cuturi, 2019), proposition 2.1, https://arxiv.org/abs/1803.00567

    Examples:
        >>> x = torch.zeros(20, 1)
        >>> Wasserstein().compute(real=x, fake=x + 3)["W1"].value
        3.0
    """

    better: Literal["lower", "higher"] = "lower"
    most = _MOST

    def update(self, state: Stores, set: str, values: Mapping[str, Tensor], indices: Tensor) -> Stores:
        """Returns the state with more samples of a set: `features`, `b d`.

        Raises:
            ValueError: If shapes do not match, a value is not finite, or there are now more than 5,000 samples.
        """
        state = super().update(state, set, values, indices)
        _check_most(type(self).__name__, len(state.get(set, ())))
        return state

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the score `W1`; `rng` is not used.

        Raises:
            ValueError: If a set has fewer than two samples or more than 5,000, or counts or numbers of features differ.
        """
        rows = self.rows(state)
        (_, real), (_, fake) = rows.values()
        _check(type(self).__name__, real, fake)
        _check_counts(type(self).__name__, len(real), len(fake))
        groups = [assign_groups(indices, _GROUPS) for indices, _ in rows.values()]
        counts = {name: len(indices) for name, (indices, _) in rows.items()}
        return {"W1": Score(_assign(real, fake), _estimate_error(real, fake, groups), "lower", counts)}


def _assign(real: Tensor, fake: Tensor) -> float:
    from scipy.optimize import linear_sum_assignment

    costs = torch.cdist(real.double(), fake.double(), compute_mode="donot_use_mm_for_euclid_dist").numpy()
    return float(costs[linear_sum_assignment(costs)].mean())


def _estimate_error(real: Tensor, fake: Tensor, groups: list[Tensor]) -> float | None:
    """Estimates the standard error from disjoint subsets of one size; returns None if they would be empty."""
    size = min(int(torch.bincount(each, minlength=_GROUPS).min()) for each in groups)
    if not size:
        return None
    subsets = [[rows[each == group][:size] for group in range(_GROUPS)] for rows, each in zip((real, fake), groups)]
    values = [_assign(x, y) for x, y in zip(*subsets, strict=True)]
    return float(torch.tensor(values, dtype=torch.float64).std()) * math.sqrt(size / len(real))


def _slice(rows: list[Tensor], groups: list[Tensor], directions: Tensor, *, num_groups: int) -> Tensor:
    """The mean distance between projections, of all samples, then without each group of the first and second set, `v`.

    Samples are counted as whole numbers and only then divided, so the distance between equal sets is exactly 0.
    """
    unit = normalize(directions.double(), dim=1)
    lines = torch.cat([_project(each, unit) for each in rows]).T
    owners = torch.cat([groups[0], groups[1] + num_groups])
    sizes = [len(each) for each in rows]
    sums = torch.zeros(1 + 2 * num_groups, dtype=torch.float64)
    step = max(1, _TILE // len(owners))
    for first in range(0, len(lines), step):
        places, order = lines[first : first + step].sort(dim=1)
        gaps, owner = places.diff(dim=1), owners[order][:, :-1]
        below = [_count_up(owner < num_groups), _count_up(owner >= num_groups)]  # samples of each set below each gap
        shares = [count / size for count, size in zip(below, sizes, strict=True)]
        sums[0] += _integrate(shares[0], shares[1], gaps)
        for group in range(2 * num_groups):
            side, out = group // num_groups, owner == group
            left = sizes[side] - (owners == group).sum()
            sums[1 + group] += _integrate((below[side] - _count_up(out)) / left, shares[1 - side], gaps)
    return sums / len(lines)


def _count_up(chosen: Tensor) -> Tensor:
    return chosen.cumsum(1, dtype=torch.float64)


def _integrate(f: Tensor, g: Tensor, gaps: Tensor) -> Tensor:
    """Integrates |f - g| and sums over directions."""
    return ((f - g).abs_() * gaps).sum()


def _project(rows: Tensor, unit: Tensor) -> Tensor:
    """Projects rows on unit vectors, `n u`, float64."""
    return torch.cat([rows[first : first + _ROWS].double() @ unit.T for first in range(0, len(rows), _ROWS)])


def _check(name: str, real: Tensor, fake: Tensor) -> None:
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1] or not (len(real) and len(fake)):
        received = f"{tuple(real.shape)} and {tuple(fake.shape)}"
        raise ValueError(f"{name} expects real (n, d) and fake (m, d), at least one of each, got {received}")
    if not bool(torch.isfinite(real).all() and torch.isfinite(fake).all()):
        raise ValueError(f"{name} expects finite values, got NaN or infinity")


def _check_counts(name: str, real: int, fake: int) -> None:
    if real != fake:
        raise ValueError(f"{name} expects as many real as fake samples, got {real} real and {fake} fake")
    _check_most(name, real)


def _check_most(name: str, count: int) -> None:
    if count > _MOST:
        message = f"{name} expects at most {_MOST} samples of a set, got {count}: take fewer, or sliced-wasserstein"
        raise ValueError(message)
