"""The trilemma: quality, coverage and speed of systems, and which systems are on the Pareto front of the three.

quality    FID, otherwise the first Fréchet distance that all systems have (lower is better)
coverage   coverage, otherwise recall, by the same features if possible
speed      samples per second
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from modkit.comparison.entries import RunEvaluation, System
from modkit.comparison.ranking import Better, Ranking, find_dominators, rank
from modkit.comparison.titles import parse_title
from modkit.comparison.words import join_words

__all__ = ["Axis", "Point", "Trilemma", "make_trilemma", "rank_systems"]

_SPEED = "samples/s"
_KINDS = {"quality": ("FID", "FD"), "coverage": ("coverage", "recall"), "speed": (_SPEED,)}


class Axis(NamedTuple):
    """An axis: its role (`quality`, `coverage` or `speed`), the score that it shows and which direction is better.

    One is logarithmic (`log`) only if all that it shows is positive, the score of held-out images included.
    """

    role: str
    score: str
    better: Better
    log: bool = False


@dataclass(frozen=True)
class Point:
    """A system on the axes of the trilemma."""

    label: str  # its label
    number: int  # its number, which determines its style
    values: Mapping[str, float]  # its values by role; a value that was not measured is left out
    errors: Mapping[str, float | None]  # their standard errors
    ranked: frozenset[str]  # the roles in which it is ranked
    seeds: Sequence[Mapping[str, float]] = ()  # values of each training seed by role


@dataclass(frozen=True)
class Trilemma:
    """Quality, coverage and speed."""

    axes: tuple[Axis, ...]  # those of the three axes that were measured for some system
    points: tuple[Point, ...]  # the systems that have a value on one of them
    floor: Mapping[str, float]  # scores of held-out images by role
    references: tuple[str, ...]  # names of the data sets that these images are from
    # for each label the labels of the systems that dominate it, none if it is on the Pareto front; systems that are not
    # ranked on all axes are left out
    dominated: Mapping[str, tuple[str, ...]]
    unmeasured: tuple[str, ...] = ()  # the roles for which no entry has a score

    @property
    def front(self) -> tuple[str, ...]:
        """Labels on the Pareto front."""
        return tuple(label for label, others in self.dominated.items() if not others)

    def list_pairs(self) -> list[tuple[Axis, Axis]]:
        """Lists the pairs of axes to plot, horizontal and vertical."""
        by = {axis.role: axis for axis in self.axes}
        wanted = (("speed", "quality"), ("speed", "coverage"), ("coverage", "quality"))
        return [(by[x], by[y]) for x, y in wanted if x in by and y in by]

    def find_front(self, axes: Sequence[Axis]) -> tuple[str, ...]:
        """Finds the labels on the Pareto front of some of the axes."""
        return tuple(label for label, others in _find_dominators(axes, self.points).items() if not others)


def make_trilemma(systems: Sequence[System]) -> Trilemma:
    """Makes the trilemma of systems."""
    axes = tuple(_choose_axes(systems))
    rankings = {axis.role: rank_systems(systems, axis.score) for axis in axes}
    points = tuple(
        point for number, system in enumerate(systems) if (point := _make_point(system, number, axes, rankings)).values
    )
    holders = {axis.role: _find_holder(systems, axis.score, rankings[axis.role]) for axis in axes}
    found = {role: entry for role, entry in holders.items() if entry is not None}
    floor = {axis.role: float(found[axis.role].report.floor[axis.score].value) for axis in axes if axis.role in found}
    axes = tuple(axis._replace(log=axis.log and floor.get(axis.role, 1.0) > 0) for axis in axes)
    references = tuple(dict.fromkeys(entry.reference for entry in found.values()))
    measured = _find_scores(name for system in systems for entry in system.members for name in entry.report.scores)
    unmeasured = tuple(role for role, names in measured.items() if not names)
    return Trilemma(axes, points, floor, references, _find_dominators(axes, points), unmeasured)


def rank_systems(systems: Sequence[System], name: str) -> Ranking:
    """Ranks systems by a score; one whose seeds were not all measured, or with different settings, is left out."""
    found = {system.label: measured for system in systems if (measured := system.get_measured(name)) is not None}
    made = rank(found)
    left = {s.label: reason for s in systems if s.label not in found and (reason := _explain_left(s, name))}
    return Ranking(made.better, made.ranks, made.close, {**made.unranked, **left})


def _explain_left(system: System, name: str) -> str | None:
    """Explains why a system of several seeds has no score of a name that some of them have; None if none has it."""
    seeds = [str(entry.seed) for entry in system.members if name in entry.report.scores]
    if len(seeds) == len(system.members):
        return "its seeds were measured with different settings"
    words = f"seed {seeds[0]} was" if len(seeds) == 1 else f"seeds {join_words(seeds)} were"
    return f"only {words} measured" if seeds else None


def _choose_axes(systems: Sequence[System]) -> Iterator[Axis]:
    scores = _find_scores(name for system in systems for name in system.names)
    quality = _choose_name(systems, scores["quality"])
    if quality is not None:
        values = [score.value for system in systems if (score := system.get_score(quality)) is not None]
        log = bool(values) and min(values) > 0 and max(values) > 10 * min(values)
        yield Axis("quality", quality, "lower", log)
    titles = {name: parse_title(name) for names in scores.values() for name in names}
    features = titles[quality].features if quality is not None else ""
    wanted = sorted(scores["coverage"], key=lambda n: (titles[n].score == "recall", titles[n].features != features))
    coverage = _choose_name(systems, wanted)
    if coverage is not None:
        yield Axis("coverage", coverage, "higher")
    if scores["speed"]:
        yield Axis("speed", _SPEED, "higher", True)


def _find_scores(names: Iterable[str]) -> dict[str, list[str]]:
    """Finds the names that can be on the axis of each role, the preferred kind first; those of classes cannot."""
    titles = {name: title.score for name in dict.fromkeys(names) if not (title := parse_title(name)).of}
    return {
        role: [n for kind in kinds for n, score in titles.items() if score == kind] for role, kinds in _KINDS.items()
    }


def _choose_name(systems: Sequence[System], names: Sequence[str]) -> str | None:
    """Chooses the name that most systems have, the first of them in a tie."""
    return max(names, key=lambda name: sum(name in system.names for system in systems), default=None)


def _make_point(system: System, number: int, axes: Sequence[Axis], rankings: Mapping[str, Ranking]) -> Point:
    scores = {axis.role: score for axis in axes if (score := system.get_score(axis.score)) is not None}
    members = system.members if len(system.members) > 1 else ()
    return Point(
        system.label,
        number,
        {role: float(score.value) for role, score in scores.items()},
        {role: score.error for role, score in scores.items()},
        frozenset(role for role in scores if system.label in rankings[role].ranks),
        [{axis.role: float(entry.report.scores[axis.score].value) for axis in axes if axis.role in scores}
         for entry in members],
    )  # fmt: skip


def _find_holder(systems: Sequence[System], name: str, ranking: Ranking) -> RunEvaluation | None:
    """Finds the first entry of a ranked system that has the score of held-out images."""
    ranked = (system.members[0] for system in systems if system.label in ranking.ranks)
    return next((entry for entry in ranked if name in entry.report.floor), None)


def _find_dominators(axes: Sequence[Axis], points: Sequence[Point]) -> dict[str, tuple[str, ...]]:
    roles = [axis.role for axis in axes]
    ranked = {point.label: [point.values[role] for role in roles] for point in points if point.ranked.issuperset(roles)}
    return find_dominators(ranked, [axis.better for axis in axes]) if len(axes) > 1 else {}
