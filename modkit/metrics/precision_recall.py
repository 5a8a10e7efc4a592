r"""Precision and recall, density and coverage: how many samples lie in balls around the other set's samples.

    precision = share of fake samples in any ball around a real one;   recall: the same with the sets swapped
    density   = 1 / (k m) sum_j sum_i 1[fake_j in the ball of real_i];   coverage = share of real balls that hold a fake

A ball reaches to its centre's k-th nearest neighbour in its own set. Counts are those of float64 distances. Errors are
of balanced half-samples of both sets, radii included (see `halves`).

Shape letters: n samples, d features, s splits in halves.

References:
    Improved Precision and Recall Metric (Kynkäänniemi et al., 2019), eq. 1-2, https://arxiv.org/abs/1904.06991
    Reliable Fidelity and Diversity Metrics (Naeem et al., 2020), eq. 3-4, https://arxiv.org/abs/2002.09797
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.metrics.halves import count_smallest_half, mean_and_error
from modkit.metrics.neighbours import Balls, Comparison, Hits, Points, compute_radii, count_hits, prepare_points
from modkit.metrics.store import Rows, StoredMetric, Stores
from modkit.rng import Rng
from modkit.types import Score

__all__ = ["PRDC", "DensityCoverage", "PrecisionRecall", "prdc"]

Side = Literal["real", "fake"]


class _Rule(NamedTuple):
    """What a ball is."""

    k: int
    comparison: Comparison


def prdc(
    *,
    real: Tensor,
    fake: Tensor,
    k: int = 3,
    comparison: Comparison = "<=",
    coverage_k: int = 5,
    coverage_comparison: Comparison = "<",
) -> dict[str, float]:
    """Precision, recall, density and coverage of features.

    Args:
        real: Features, `n d`.
        fake: Features, as many.
        k: A ball reaches to its centre's k-th nearest neighbour, for precision and recall.
        comparison: A distance is this of the radius, where it is within.
        coverage_k: As `k`, for density and coverage.
        coverage_comparison: As `comparison`.

    Raises:
        ValueError: If shapes or counts don't fit, there are no more than k samples or a value is not finite.
    """
    given = {"real": real.detach().cpu(), "fake": fake.detach().cpu()}
    rules = _rule("prdc", k, comparison), _rule("prdc", coverage_k, coverage_comparison)
    if len(real) <= max(k, coverage_k):
        raise ValueError(f"prdc expects more than k = {max(k, coverage_k)} samples, got {len(real)}")
    scores = _scores("prdc", {name: (torch.arange(len(each)), each) for name, each in given.items()}, *rules)
    return {name: score.value for name, score in scores.items()}


class PRDC(StoredMetric):
    """Precision and recall, density and coverage in one pass: fidelity and diversity, each measured twice.

    Precision: fakes among the real samples; recall: real samples among the fakes. Coverage: real samples with a fake
    nearby; density: how many real samples a fake is near, which may exceed 1.

    References:
        Improved Precision and Recall Metric (Kynkäänniemi et al., 2019), eq. 1-2, https://arxiv.org/abs/1904.06991
        Reliable Fidelity and Diversity Metrics (Naeem et al., 2020), eq. 3-4, https://arxiv.org/abs/2002.09797

    Args:
        k: A ball reaches to its centre's k-th nearest neighbour, for precision and recall.
        comparison: A distance is this of the radius, where it is within.
        coverage_k: As `k`, for density and coverage.
        coverage_comparison: As `comparison`, for density and coverage.

    Raises:
        ValueError: If a k is not positive or a comparison another.
    """

    better: Literal["higher"] = "higher"

    def __init__(
        self,
        *,
        k: int = 3,
        comparison: Literal["<=", "<"] = "<=",
        coverage_k: int = 5,
        coverage_comparison: Literal["<=", "<"] = "<",
    ) -> None:
        self.held, self.counted = _rule("PRDC", k, comparison), _rule("PRDC", coverage_k, coverage_comparison)

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """The scores `precision`, `recall`, `density` and `coverage`; draws nothing.

        Raises:
            ValueError: If counts differ or there are no more than k samples.
        """
        rows = self.rows(state, least=max(self.held.k, self.counted.k) + 1)
        return _scores("PRDC", rows, self.held, self.counted)


class PrecisionRecall(StoredMetric):
    """Improved precision and recall alone: fakes among the real samples, and real samples among the fakes.

    References:
        Improved Precision and Recall Metric (Kynkäänniemi et al., 2019), eq. 1-2, https://arxiv.org/abs/1904.06991

    Args:
        k: A ball reaches to its centre's k-th nearest neighbour.
        comparison: A distance is this of the radius, where it is within.

    Raises:
        ValueError: If `k` is not positive or the comparison another.
    """

    better: Literal["higher"] = "higher"

    def __init__(self, *, k: int = 3, comparison: Literal["<=", "<"] = "<=") -> None:
        self.held = _rule("PrecisionRecall", k, comparison)

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """The scores `precision` and `recall`; draws nothing.

        Raises:
            ValueError: If counts differ or there are no more than k samples.
        """
        return _scores("PrecisionRecall", self.rows(state, least=self.held.k + 1), self.held, None)


class DensityCoverage(StoredMetric):
    """Density and coverage alone: real balls that hold a fake, counted by the fake and by the ball.

    Density may exceed 1.

    References:
        Reliable Fidelity and Diversity Metrics (Naeem et al., 2020), eq. 3-4, https://arxiv.org/abs/2002.09797

    Args:
        k: A ball reaches to its centre's k-th nearest neighbour.
        comparison: A distance is this of the radius, where it is within.

    Raises:
        ValueError: If `k` is not positive or the comparison another.
    """

    better: Literal["higher"] = "higher"

    def __init__(self, *, k: int = 5, comparison: Literal["<=", "<"] = "<") -> None:
        self.counted = _rule("DensityCoverage", k, comparison)

    def result(self, state: Stores, rng: Rng) -> dict[str, Score]:
        """The scores `density` and `coverage`; draws nothing.

        Raises:
            ValueError: If counts differ or there are no more than k samples.
        """
        return _scores("DensityCoverage", self.rows(state, least=self.counted.k + 1), None, self.counted)


def _rule(name: str, k: int, comparison: Comparison) -> _Rule:
    if k < 1 or comparison not in ("<", "<="):
        raise ValueError(f"{name} expects k of at least 1 and comparison '<' or '<=', got {k}, {comparison!r}")
    return _Rule(k, comparison)


def _scores(name: str, rows: Mapping[str, Rows], held: _Rule | None, counted: _Rule | None) -> dict[str, Score]:
    """Precision and recall by the rule `held`, density and coverage by `counted`, all from one product of the sets."""
    if len(rows["real"][0]) != len(rows["fake"][0]):
        received = " and ".join(f"{len(indices)} {side}" for side, (indices, _) in rows.items())
        raise ValueError(f"{name} expects as many real as fake samples, got {received}")
    sets = prepare_points(**rows)
    asked: list[tuple[Side, _Rule]] = [("real", held), ("fake", held)] if held else []
    found = _hits(sets, [*asked, ("real", counted)] if counted else asked)
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


def _hits(sets: Mapping[str, Points], asked: Sequence[tuple[Side, _Rule]]) -> dict[tuple[Side, _Rule], Hits]:
    """Hits of the balls around each set's samples."""
    around = {}
    for side in dict.fromkeys(side for side, _ in asked):
        around[side] = compute_radii(sets[side], sorted({rule.k for of, rule in asked if of == side}))
    balls = {(side, rule): Balls(side, around[side][rule.k], rule.comparison) for side, rule in asked}
    return dict(zip(balls, count_hits(sets["real"], sets["fake"], list(balls.values())), strict=True))


def _score(each: Tensor, rule: _Rule, sides: Tensor, other: Tensor) -> Score:
    """The mean of `each`, a sample's share of the score, `n s+1`; in halves too small for a radius it has no error."""
    value, error = mean_and_error(each, sides)
    known = min(count_smallest_half(sides), count_smallest_half(other)) > rule.k
    return Score(
        value,
        error if known else None,
        "higher",
        {"real": len(other), "fake": len(other)},
        settings=rule._asdict(),
    )
