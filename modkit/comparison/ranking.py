r"""Ranking: which scores may be held against each other, who is best, and who lies on the Pareto front.

Scores of one name are ranked if they were measured on the same data with equal counts and settings
(`Score.comparable`). Where they were not, the largest set of comparable ones is ranked and the others are left out with
the reason; where two sets are the largest, none is.

Training seeds are averaged first, value and standard error over n seeds:

    mean = sum_i v_i / n,    error = sqrt(sum_i (v_i - mean)^2 / (n (n - 1)))

A point is on the Pareto front if no other is at least as good in everything and better in something.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from modkit.types import Score

__all__ = ["Better", "Measured", "Ranking", "averaged", "better_than", "pareto", "rank"]

Better: TypeAlias = Literal["lower", "higher"]


@dataclass(frozen=True)
class Measured:
    """A score and the data on which it was measured.

    Args:
        score: The score.
        data: Hash of the data set.
    """

    score: Score
    data: str = ""

    def comparable(self, other: Measured) -> bool:
        """Whether both may be ranked: the same data, equal counts and settings."""
        return self.data == other.data and self.score.is_comparable_to(other.score)


@dataclass(frozen=True)
class Ranking:
    """The order of what has one score.

    Args:
        better: Which direction is better, or None where neither is: then nothing is ranked.
        ranks: Rank by label, 1 for the best; equal values share a rank.
        close: Labels whose distance from the best is below two standard errors of that distance.
        unranked: Why a label that has the score is left out.
    """

    better: Better | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    close: tuple[str, ...] = ()
    unranked: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> tuple[str, ...]:
        """Labels of rank 1."""
        return tuple(label for label, number in self.ranks.items() if number == 1)


def rank(measured: Mapping[str, Measured]) -> Ranking:
    """Ranks one score of several systems.

    Args:
        measured: The score by label.
    """
    if not measured:
        return Ranking()
    sets = _comparable_sets(measured)
    largest = max(sets, key=len)
    better = measured[largest[0]].score.better
    if better is None:
        return Ranking()
    if len(sets) > 1 and sum(len(one) == len(largest) for one in sets) > 1:
        reasons = {
            label: _difference(found, measured[next(o for s in sets if label not in s for o in s)])
            for label, found in measured.items()
        }
        return Ranking(better, unranked=reasons)
    chosen = {label: measured[label].score for label in largest}
    left = {label: _difference(m, measured[largest[0]]) for label, m in measured.items() if label not in chosen}
    ranks = {
        label: 1 + sum(better_than(other.value, score.value, better) for other in chosen.values())
        for label, score in chosen.items()
    }
    best = chosen[min(ranks, key=ranks.__getitem__)]
    close = tuple(label for label, score in chosen.items() if ranks[label] > 1 and _close(score, best))
    return Ranking(better, ranks, close, left)


def averaged(scores: Sequence[Score]) -> Score | None:
    """The mean of a score over training seeds with its standard error, or None where they are not comparable.

    Raises:
        ValueError: If there are fewer than two.
    """
    if len(scores) < 2:
        raise ValueError(f"averaged expects the scores of at least 2 seeds, got {len(scores)}")
    if not all(score.is_comparable_to(scores[0]) for score in scores):
        return None
    values = [float(score.value) for score in scores]
    mean = math.fsum(values) / len(values)
    error = statistics.stdev(values) / math.sqrt(len(values))
    warnings = tuple(dict.fromkeys(warning for score in scores for warning in score.warnings))
    return replace(scores[0], value=mean, error=error, warnings=warnings)


def better_than(a: float, b: float, better: Better) -> bool:
    """Whether `a` is better than `b`."""
    return a < b if better == "lower" else a > b


def pareto(points: Mapping[str, Sequence[float]], better: Sequence[Better]) -> dict[str, tuple[str, ...]]:
    """For each point the labels of those that dominate it: none for those on the Pareto front.

    Args:
        points: Coordinates by label.
        better: Which direction is better, by coordinate.

    Raises:
        ValueError: If a point has another number of coordinates.
    """
    for label, point in points.items():
        if len(point) != len(better):
            raise ValueError(f"pareto expects {len(better)} coordinates, got {len(point)} of {label!r}")
    return {
        label: tuple(other for other, theirs in points.items() if _dominates(theirs, mine, better))
        for label, mine in points.items()
    }


def _dominates(a: Sequence[float], b: Sequence[float], better: Sequence[Better]) -> bool:
    worse = any(better_than(theirs, mine, which) for mine, theirs, which in zip(a, b, better))
    return not worse and any(better_than(mine, theirs, which) for mine, theirs, which in zip(a, b, better))


def _comparable_sets(measured: Mapping[str, Measured]) -> list[list[str]]:
    sets: list[list[str]] = []
    for label, found in measured.items():
        for one in sets:
            if found.comparable(measured[one[0]]):
                one.append(label)
                break
        else:
            sets.append([label])
    return sets


def _close(score: Score, best: Score) -> bool:
    if score.error is None or best.error is None:
        return False
    return abs(score.value - best.value) < 2 * math.hypot(score.error, best.error)


def _difference(mine: Measured, theirs: Measured) -> str:
    """In what a score differs from those that are ranked, or from another set."""
    said = ["it was measured on other data"] if mine.data != theirs.data else []
    for what in ("counts", "settings"):
        a, b = getattr(mine.score, what), getattr(theirs.score, what)
        for key in dict.fromkeys((*a, *b)):
            if a.get(key) != b.get(key):
                said.append(f"{'number of ' if what == 'counts' else ''}{key} {_said(a, key)} against {_said(b, key)}")
    return "; ".join(said)


def _said(values: Mapping[str, object], key: str) -> str:
    value = values.get(key, "none")
    return value if isinstance(value, str) else json.dumps(value)
