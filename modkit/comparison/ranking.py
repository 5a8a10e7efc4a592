r"""Ranking: which scores may be compared, which system is best, and which systems lie on the Pareto front.

Scores of one name are ranked if they were measured on the same data with equal counts and settings
(`Score.is_comparable_to`). If they were not, the largest set of comparable scores is ranked, and the reason why each of
the others is left out is kept. If two sets are equally large, no score is ranked.

Training seeds are averaged first, value and standard error over n seeds:

    mean = sum_i v_i / n,    error = sqrt(sum_i (v_i - mean)^2 / (n (n - 1)))

A point is on the Pareto front if no other point is at least as good in all coordinates and better in one.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from modkit.types import Score

__all__ = ["Better", "Measured", "Ranking", "average", "find_dominators", "is_better", "rank"]

Better: TypeAlias = Literal["lower", "higher"]


@dataclass(frozen=True)
class Measured:
    """A score and the data on which it was measured."""

    score: Score
    data: str = ""  # hash of the data set
    reference: str = ""  # name of the data set

    def is_comparable(self, other: Measured) -> bool:
        """Whether both may be ranked together: same data, equal counts and settings."""
        return self.data == other.data and self.score.is_comparable_to(other.score)


@dataclass(frozen=True)
class Ranking:
    """The ranking of systems by one score."""

    better: Better | None = None  # which direction is better, or None if neither is; then nothing is ranked
    ranks: Mapping[str, int] = field(default_factory=dict)  # rank by label, 1 for the best; equal values share a rank
    close: tuple[str, ...] = ()  # labels that differ from the best by less than two standard errors of the difference
    unranked: Mapping[str, str] = field(default_factory=dict)  # the reason why a label that has the score is not ranked

    @property
    def best(self) -> tuple[str, ...]:
        """Labels of rank 1."""
        return tuple(label for label, number in self.ranks.items() if number == 1)


def rank(measured: Mapping[str, Measured]) -> Ranking:
    """Ranks systems by one score, given by label.

    Examples:
        >>> rank({label: Measured(Score(value, better="lower")) for label, value in (("a", 2.0), ("b", 1.0))}).ranks
        {'a': 2, 'b': 1}
    """
    if not measured:
        return Ranking()
    sets = _group_comparable(measured)
    largest = max(sets, key=len)
    better = measured[largest[0]].score.better
    if better is None:
        return Ranking()
    if len(sets) > 1 and sum(len(one) == len(largest) for one in sets) > 1:
        reasons = {
            label: _explain(found, measured[next(o for s in sets if label not in s for o in s)])
            for label, found in measured.items()
        }
        return Ranking(better, unranked=reasons)
    chosen = {label: measured[label].score for label in largest}
    left = {label: _explain(m, measured[largest[0]]) for label, m in measured.items() if label not in chosen}
    ranks = {
        label: 1 + sum(is_better(other.value, score.value, better) for other in chosen.values())
        for label, score in chosen.items()
    }
    best = chosen[min(ranks, key=ranks.__getitem__)]
    close = tuple(label for label, score in chosen.items() if ranks[label] > 1 and _is_close(score, best))
    return Ranking(better, ranks, close, left)


def average(scores: Sequence[Score]) -> Score | None:
    """Averages a score over training seeds, with its standard error; returns None if the scores are not comparable.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(scores) < 2:
        raise ValueError(f"average expects the scores of at least 2 seeds, got {len(scores)}")
    if not all(score.is_comparable_to(scores[0]) for score in scores):
        return None
    values = [float(score.value) for score in scores]
    mean = math.fsum(values) / len(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    warnings = tuple(dict.fromkeys(warning for score in scores for warning in score.warnings))
    return replace(scores[0], value=mean, error=error, warnings=warnings)


def is_better(a: float, b: float, better: Better) -> bool:
    """Tells whether `a` is better than `b`."""
    return a < b if better == "lower" else a > b


def find_dominators(points: Mapping[str, Sequence[float]], better: Sequence[Better]) -> dict[str, tuple[str, ...]]:
    """Finds, for each point, the labels of the points that dominate it; points on the Pareto front have none.

    Points are coordinates by label; `better` says which direction is better in each coordinate.

    Examples:
        >>> find_dominators({"a": (1.0, 5.0), "b": (2.0, 4.0)}, ("lower", "higher"))
        {'a': (), 'b': ('a',)}

    Raises:
        ValueError: If a point has a different number of coordinates.
    """
    for label, point in points.items():
        if len(point) != len(better):
            raise ValueError(f"find_dominators expects {len(better)} coordinates, got {len(point)} for {label!r}")
    return {
        label: tuple(other for other, theirs in points.items() if _dominates(theirs, mine, better))
        for label, mine in points.items()
    }


def _dominates(a: Sequence[float], b: Sequence[float], better: Sequence[Better]) -> bool:
    worse = any(is_better(theirs, mine, which) for mine, theirs, which in zip(a, b, better))
    return not worse and any(is_better(mine, theirs, which) for mine, theirs, which in zip(a, b, better))


def _group_comparable(measured: Mapping[str, Measured]) -> list[list[str]]:
    sets: list[list[str]] = []
    for label, found in measured.items():
        for one in sets:
            if found.is_comparable(measured[one[0]]):
                one.append(label)
                break
        else:
            sets.append([label])
    return sets


def _is_close(score: Score, best: Score) -> bool:
    if score.error is None or best.error is None:
        return False
    return abs(score.value - best.value) < 2 * math.hypot(score.error, best.error)


def _explain(mine: Measured, theirs: Measured) -> str:
    """Explains how a score differs from those that are ranked, or from another set."""
    reasons = []
    if mine.data != theirs.data:
        names = mine.reference, theirs.reference
        reasons.append("it was measured on " + (" instead of ".join(names) if all(names) else "other data"))
    for what in ("counts", "settings"):
        a, b = getattr(mine.score, what), getattr(theirs.score, what)
        for key in dict.fromkeys((*a, *b)):
            if a.get(key) != b.get(key):
                name = f"number of {key}" if what == "counts" else key
                reasons.append(f"{name} is {_format_setting(a, key)} instead of {_format_setting(b, key)}")
    return "; ".join(reasons)


def _format_setting(values: Mapping[str, object], key: str) -> str:
    value = values.get(key, "none")
    return value if isinstance(value, str) else json.dumps(value)
