"""The trilemma: quality, coverage and speed of systems, and which systems are on the Pareto front of the three.

quality    FID, otherwise the first Fréchet distance that all systems have (lower is better)
coverage   coverage, otherwise recall, by the same features if possible
speed      samples per second
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from modkit.comparison.entries import Entry, System
from modkit.comparison.ranking import Better, Ranking, find_dominators, rank
from modkit.comparison.titles import parse_title

__all__ = ["Axis", "Point", "Trilemma", "make_trilemma", "rank_systems"]

_SPEED = "samples/s"


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
    return Trilemma(axes, points, floor, references, _find_dominators(axes, points))


def rank_systems(systems: Sequence[System], name: str) -> Ranking:
    """Ranks systems by a score; a system whose seeds were measured with different settings is left out."""
    found = {system.label: measured for system in systems if (measured := system.get_measured(name)) is not None}
    made = rank(found)
    unlike = {
        s.label: "its seeds were measured with different settings"
        for s in systems
        if name in s.names and s.label not in found
    }
    return Ranking(made.better, made.ranks, made.close, {**made.unranked, **unlike})


def _choose_axes(systems: Sequence[System]) -> Iterator[Axis]:
    names = list(dict.fromkeys(name for system in systems for name in system.names))
    titles = {name: title for name in names if not (title := parse_title(name)).of}
    quality = _choose_name(systems, [n for kind in ("FID", "FD") for n in titles if titles[n].score == kind])
    if quality is not None:
        values = [score.value for system in systems if (score := system.get_score(quality)) is not None]
        log = bool(values) and min(values) > 0 and max(values) > 10 * min(values)
        yield Axis("quality", quality, "lower", log)
    features = titles[quality].features if quality is not None else ""
    wanted = [n for kind in ("coverage", "recall") for n in titles if titles[n].score == kind]
    wanted.sort(key=lambda n: (titles[n].score == "recall", titles[n].features != features))
    coverage = _choose_name(systems, wanted)
    if coverage is not None:
        yield Axis("coverage", coverage, "higher")
    if _SPEED in names:
        yield Axis("speed", _SPEED, "higher", True)


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


def _find_holder(systems: Sequence[System], name: str, ranking: Ranking) -> Entry | None:
    """Finds the first entry of a ranked system that has the score of held-out images."""
    ranked = (system.members[0] for system in systems if system.label in ranking.ranks)
    return next((entry for entry in ranked if name in entry.report.floor), None)


def _find_dominators(axes: Sequence[Axis], points: Sequence[Point]) -> dict[str, tuple[str, ...]]:
    roles = [axis.role for axis in axes]
    ranked = {point.label: [point.values[role] for role in roles] for point in points if point.ranked.issuperset(roles)}
    return find_dominators(ranked, [axis.better for axis in axes]) if len(axes) > 1 else {}
