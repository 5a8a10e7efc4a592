r"""Precision and recall, density and coverage: how many samples lie in balls around the samples of the other set.

    precision = share of fake samples in any ball around a real one;   recall: the same with the sets exchanged
    density   = 1 / (k m) sum_j sum_i 1[fake_j in the ball of real_i]
    coverage  = share of real balls that contain a fake

The radius of a ball is the distance to its centre's k-th nearest neighbour in its own set. Counts are those of float64
distances. Errors are estimated from balanced half-samples of both sets, radii included (see `halves`).

Shape letters: n samples, d features, s splits in halves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

from torch import Tensor

from modkit.metrics.halves import compute_mean_and_error, count_smallest_half
from modkit.metrics.neighbours import Balls, Comparison, Hits, Points, compute_radii, count_hits, prepare_points
from modkit.metrics.store import StoredMetric, Stores
from modkit.rng import Rng
from modkit.types import PositiveInt, Range, Score, checked

__all__ = ["PRDC", "DensityCoverage", "PrecisionRecall"]

Rank = Annotated[int, "Balls reach to their centre's k-th nearest neighbour.", Range(1)]
Within = Annotated[Literal["<=", "<"], "How a distance must compare with the radius to be within the ball."]
Side = Literal["real", "fake"]


class _Rule(NamedTuple):
    """Defines the balls: their radius, and the comparison that decides whether a distance is within."""

    k: int
    comparison: Comparison


class _BallMetric(StoredMetric):
    """A metric of samples in balls: precision and recall by the rule `held`, density and coverage by `counted`."""

    better: Literal["lower", "higher"] = "higher"

    def __init__(self, held: _Rule | None, counted: _Rule | None) -> None:
        self.held, self.counted = held, counted
        self.fewest = 1 + max(rule.k for rule in (held, counted) if rule)

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """Computes the scores that the class names, such as `precision` and `recall`; `rng` is not used.

        Raises:
            ValueError: If counts differ or there are k samples or fewer.
        """
        held, counted = self.held, self.counted
        rows = self.rows(state)
        if len(rows["real"][0]) != len(rows["fake"][0]):
            received = " and ".join(f"{len(indices)} {side}" for side, (indices, _) in rows.items())
            raise ValueError(f"{type(self).__name__} expects as many real as fake samples, got {received}")
        sets = prepare_points(state["fake"].device, **rows)
        asked: list[tuple[Side, _Rule]] = [("real", held), ("fake", held)] if held else []
        found = _count_hits(sets, [*asked, ("real", counted)] if counted else asked)
        real, fake = sets["real"].sides, sets["fake"].sides
        scores = {}
        if held:
            scores["precision"] = _score(found["real", held].by_query > 0, held, fake, real)
            scores["recall"] = _score(found["fake", held].by_query > 0, held, real, fake)
        if counted:
            inside = found["real", counted]
            scores["density"] = _score(inside.by_query.double() / counted.k, counted, fake, real)
            scores["coverage"] = _score(inside.by_centre > 0, counted, real, fake)
        return scores


@checked
class PRDC(_BallMetric):
    """Precision and recall, density and coverage in one pass: fidelity and diversity, each measured twice.

    Precision is the share of fakes among the real samples, recall that of real samples among the fakes. Coverage is the
    share of real samples with a fake nearby. Density is the number of real samples that a fake is near, divided by k;
    it may exceed 1.

    References:
        Improved Precision and Recall Metric (Kynkäänniemi et al., 2019), eq. 1-2, https://arxiv.org/abs/1904.06991
        Reliable Fidelity and Diversity Metrics (Naeem et al., 2020), eq. 3-4, https://arxiv.org/abs/2002.09797

    Args:
        coverage_k: Like `k`, which is for precision and recall, for density and coverage.
        coverage_comparison: Like `comparison`, for density and coverage.

    Raises:
        ValueError: If a k is not positive or a comparison is unknown.

    Examples:
        >>> import torch
        >>> x = torch.arange(8.0)[:, None]
        >>> {name: score.value for name, score in PRDC().compute(real=x, fake=x + 100).items()}
        {'precision': 0.0, 'recall': 0.0, 'density': 0.0, 'coverage': 0.0}
    """

    def __init__(
        self,
        *,
        k: Rank = 3,
        comparison: Within = "<=",
        coverage_k: PositiveInt = 5,
        coverage_comparison: Literal["<=", "<"] = "<",
    ) -> None:
        super().__init__(_Rule(k, comparison), _Rule(coverage_k, coverage_comparison))


@checked
class PrecisionRecall(_BallMetric):
    """Only improved precision and recall: fakes among the real samples, and real samples among the fakes.

    References:
        Improved Precision and Recall Metric (Kynkäänniemi et al., 2019), eq. 1-2, https://arxiv.org/abs/1904.06991

    Raises:
        ValueError: If `k` is not positive or the comparison is unknown.

    Examples:
        >>> import torch
        >>> x = torch.arange(8.0)[:, None]
        >>> {name: score.value for name, score in PrecisionRecall().compute(real=x, fake=x).items()}
        {'precision': 1.0, 'recall': 1.0}
    """

    def __init__(self, *, k: Rank = 3, comparison: Within = "<=") -> None:
        super().__init__(_Rule(k, comparison), None)


@checked
class DensityCoverage(_BallMetric):
    """Only density and coverage: how often fakes lie in balls around real samples, by fake and by ball.

    Density may exceed 1.

    References:
        Reliable Fidelity and Diversity Metrics (Naeem et al., 2020), eq. 3-4, https://arxiv.org/abs/2002.09797

    Raises:
        ValueError: If `k` is not positive or the comparison is unknown.

    Examples:
        >>> import torch
        >>> x = torch.arange(8.0)[:, None]
        >>> {name: score.value for name, score in DensityCoverage().compute(real=x, fake=x + 100).items()}
        {'density': 0.0, 'coverage': 0.0}
    """

    def __init__(self, *, k: Rank = 5, comparison: Within = "<") -> None:
        super().__init__(None, _Rule(k, comparison))


def _count_hits(sets: Mapping[str, Points], asked: Sequence[tuple[Side, _Rule]]) -> dict[tuple[Side, _Rule], Hits]:
    """Counts hits of the balls around the samples of each set."""
    around = {}
    for side in dict.fromkeys(side for side, _ in asked):
        around[side] = compute_radii(sets[side], sorted({rule.k for of, rule in asked if of == side}))
    balls = {(side, rule): Balls(side, around[side][rule.k], rule.comparison) for side, rule in asked}
    return dict(zip(balls, count_hits(sets["real"], sets["fake"], list(balls.values())), strict=True))


def _score(each: Tensor, rule: _Rule, sides: Tensor, other: Tensor) -> Score:
    """Averages `each`, a sample's share of the score, `n s+1`; without an error if a half is too small for a radius."""
    value, error = compute_mean_and_error(each, sides)  # type: tuple[float, float | None]
    error = error if min(count_smallest_half(sides), count_smallest_half(other)) > rule.k else None
    return Score(value, error, "higher", {"real": len(other), "fake": len(other)}, settings=rule._asdict())
