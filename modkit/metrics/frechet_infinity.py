r"""Fréchet distance extrapolated to infinitely many samples, without the bias of finitely many.

    FD(n_i) = FD_inf + c / n_i,   15 sizes n_i up to N, by least squares

Shape letters: b batch, n samples, d features.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from modkit.metrics.frechet import Factor, compute_distance, factor
from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.moments import Moments
from modkit.metrics.store import StoredMetric, Stores
from modkit.rng import Rng
from modkit.types import Range, Score, checked

__all__ = ["FrechetInfinity"]

Curve = list[tuple[float, Factor]]  # 1/n of a subset, or 0 for a whole set, and the subset's Gaussian

_GROUPS = 10
_ERROR_DIM = 256  # number of features above which the error (20 more curves) would cost too much


@checked
class FrechetInfinity(StoredMetric):
    """The Fréchet distance at 1/N = 0, extrapolated from its values on random subsets.

    Subsets are drawn without replacement and nested, so that all together take one pass. The extrapolated value varies
    far more than a distance does. The standard error is the delete-a-group jackknife's up to 256 features, and None
    above.

    References:
        Effectively Unbiased FID and Inception Score and where to find them (Chong and Forsyth, 2020), section 4,
        https://arxiv.org/abs/1911.07023

    Args:
        num_sizes: Number of subset sizes, evenly spaced.
        lowest: The smallest size; at most half of the samples are used for it.
        of: Which sets are subsampled: `fake`, against all real samples, as the authors do, which keeps the bias of the
            real samples; or `both`, which has no such bias.

    Raises:
        ValueError: If there are fewer than two sizes, the smallest has fewer than two samples, or `of` is unknown.

    Examples:
        >>> x = Rng(0).normal("x", torch.empty(400, 2))
        >>> scores = FrechetInfinity(num_sizes=4, lowest=50, of="both").compute(real=x, fake=x + 3)
        >>> bool(abs(scores["FD∞"].value - 18) < 2)
        True
    """

    better: Literal["lower", "higher"] = "lower"
    fewest = 8

    def __init__(
        self,
        *,
        num_sizes: Annotated[int, Range(2)] = 15,
        lowest: Annotated[int, Range(2)] = 5000,
        of: Literal["fake", "both"] = "fake",
    ) -> None:
        self.num_sizes, self.lowest, self.of = num_sizes, lowest, of

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the score `FD∞`; `rng` draws the subsets."""
        rows, groups = {}, {}
        for name, (indices, values) in self.rows(state).items():
            order = rng.uniform(name, torch.empty(1, len(indices)))[0].argsort(stable=True)
            rows[name], groups[name] = values[order], assign_groups(indices[order], _GROUPS)
        curves = {
            name: self._make_curve(rows[name], groups[name] >= 0, shrinks=self._shrinks(name)) for name in self.sets
        }
        value = _fit_intercept(curves["real"], curves["fake"])
        variances = [
            self._estimate_variance(value, rows[name], groups[name], self._shrinks(name), curves[other])
            for name, other in (("real", "fake"), ("fake", "real"))
        ]
        counts = {name: len(values) for name, values in rows.items()}
        sizes = self._choose_sizes(counts["fake"])
        few, dim = min(sizes), rows["fake"].shape[1]
        warning = f"subsets start at {few} samples of {dim} features: their covariances are singular and no line fits"
        warnings = () if few > dim else (warning,)
        settings = {"sizes": sizes, "of": self.of}
        error = standard_error(*variances)
        return {"FD∞": Score(value, error, self.better, counts, settings=settings, warnings=warnings)}

    def _choose_sizes(self, count: int) -> list[int]:
        ends = min(self.lowest, count // 2), count
        return [round(size) for size in torch.linspace(*ends, self.num_sizes, dtype=torch.float64).tolist()]

    def _shrinks(self, name: str) -> bool:
        return self.of == "both" or name == "fake"

    def _make_curve(self, x: Tensor, kept: Tensor, *, shrinks: bool) -> Curve:
        """The Gaussians of the kept rows among the first of `x`, by size; of all if the set does not shrink."""
        if not shrinks:
            return [(0.0, factor(Moments.from_samples(x[kept])))] * self.num_sizes
        curve, moments, seen = [], Moments(x.shape[1]), 0
        for size in self._choose_sizes(len(x)):
            moments.update(x[seen:size][kept[seen:size]])
            curve.append((1 / moments.count, factor(moments)))
            seen = size
        return curve

    def _estimate_variance(self, value: float, x: Tensor, groups: Tensor, shrinks: bool, other: Curve) -> float | None:
        smallest = groups[: min(self._choose_sizes(len(x)))].bincount(minlength=_GROUPS)
        if x.shape[1] > _ERROR_DIM or int(smallest.sum() - smallest.max()) < 2:
            return None
        without = lambda group: _fit_intercept(self._make_curve(x, groups != group, shrinks=shrinks), other)  # noqa: E731
        return compute_variance(value, without, groups.bincount(minlength=_GROUPS).tolist())


def _fit_intercept(a: Curve, b: Curve) -> float:
    """The value at 1/n = 0 of the line fitted to the distances."""
    inverse = torch.tensor([x + y for (x, _), (y, _) in zip(a, b, strict=True)], dtype=torch.float64)
    distances = [compute_distance(x, y) for (_, x), (_, y) in zip(a, b, strict=True)]
    y = torch.tensor(distances, dtype=torch.float64)
    centred = inverse - inverse.mean()
    slope = (centred @ y) / (centred @ centred)
    return float(y.mean() - slope * inverse.mean())
