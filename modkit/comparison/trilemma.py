"""The trilemma: quality, coverage and speed of systems, and who is on the Pareto front of the three.

quality    FID, else the first Fréchet distance that all have (lower is better)
coverage   coverage, else recall, by the same features where there are such
speed      samples a second
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from modkit.comparison.entries import System
from modkit.comparison.ranking import Better, Ranking, pareto, rank
from modkit.comparison.titles import taken_apart

__all__ = ["Axis", "Point", "Trilemma", "ranking", "trilemma"]

_SPEED = "samples/s"


class Axis(NamedTuple):
    """What an axis shows: the quality's, the coverage's or the speed's score, and where better is."""

    role: str
    score: str
    better: Better
    log: bool = False


@dataclass(frozen=True)
class Point:
    """A system on the axes of the trilemma.

    Args:
        label: Its name.
        number: Its number, which says how it is drawn.
        values: A value by role, where it has one.
        errors: Their standard errors.
        ranked: The roles in which it is ranked.
        seeds: Values of the single training seeds by role.
    """

    label: str
    number: int
    values: Mapping[str, float]
    errors: Mapping[str, float | None]
    ranked: frozenset[str]
    seeds: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True)
class Trilemma:
    """Quality, coverage and speed.

    Args:
        axes: Those of the three that something has.
        points: The systems that have one of them.
        floor: What held-out images score, by role.
        dominated: By whom a system is dominated, by its label: by none if it is on the Pareto front; systems that are
            not ranked in all axes are left out.
    """

    axes: tuple[Axis, ...]
    points: tuple[Point, ...]
    floor: Mapping[str, float]
    dominated: Mapping[str, tuple[str, ...]]

    @property
    def front(self) -> tuple[str, ...]:
        """Labels on the Pareto front."""
        return tuple(label for label, others in self.dominated.items() if not others)

    def pairs(self) -> list[tuple[Axis, Axis]]:
        """The pairs of axes to be plotted, horizontal and vertical."""
        by = {axis.role: axis for axis in self.axes}
        wanted = (("speed", "quality"), ("speed", "coverage"), ("coverage", "quality"))
        return [(by[x], by[y]) for x, y in wanted if x in by and y in by]

    def front_of(self, axes: Sequence[Axis]) -> tuple[str, ...]:
        """Labels on the Pareto front of some of the axes."""
        return tuple(label for label, others in _dominated(axes, self.points).items() if not others)


def trilemma(systems: Sequence[System]) -> Trilemma:
    """The trilemma of systems."""
    axes = tuple(_axes(systems))
    rankings = {axis.role: ranking(systems, axis.score) for axis in axes}
    points = tuple(
        point for number, system in enumerate(systems) if (point := _point(system, number, axes, rankings)).values
    )
    return Trilemma(axes, points, dict(_floor(systems, axes, rankings)), _dominated(axes, points))


def ranking(systems: Sequence[System], name: str) -> Ranking:
    """The ranking of systems by a score; one whose seeds were not measured alike is left out."""
    found = {system.label: measured for system in systems if (measured := system.measured(name)) is not None}
    made = rank(found)
    unlike = {s.label: "its seeds were not measured alike" for s in systems if name in s.names and s.label not in found}
    return Ranking(made.better, made.ranks, made.close, {**made.unranked, **unlike})


def _axes(systems: Sequence[System]) -> Iterator[Axis]:
    names = list(dict.fromkeys(name for system in systems for name in system.names))
    titles = {name: title for name in names if not (title := taken_apart(name)).of}
    quality = _shared(systems, [n for kind in ("FID", "FD") for n in titles if titles[n].score == kind])
    if quality is not None:
        values = [score.value for system in systems if (score := system.score(quality)) is not None]
        log = bool(values) and min(values) > 0 and max(values) > 10 * min(values)
        yield Axis("quality", quality, "lower", log)
    features = titles[quality].features if quality is not None else ""
    wanted = [n for kind in ("coverage", "recall") for n in titles if titles[n].score == kind]
    wanted.sort(key=lambda n: (titles[n].score == "recall", titles[n].features != features))
    coverage = _shared(systems, wanted)
    if coverage is not None:
        yield Axis("coverage", coverage, "higher")
    if _SPEED in names:
        yield Axis("speed", _SPEED, "higher", True)


def _shared(systems: Sequence[System], names: Sequence[str]) -> str | None:
    """The first name that all have, or that most have."""
    return max(names, key=lambda name: sum(name in system.names for system in systems), default=None)


def _point(system: System, number: int, axes: Sequence[Axis], rankings: Mapping[str, Ranking]) -> Point:
    scores = {axis.role: score for axis in axes if (score := system.score(axis.score)) is not None}
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


def _floor(
    systems: Sequence[System], axes: Sequence[Axis], rankings: Mapping[str, Ranking]
) -> Iterator[tuple[str, float]]:
    for axis in axes:
        for system in systems:
            found = system.members[0].report.floor.get(axis.score)
            if system.label in rankings[axis.role].ranks and found is not None:
                yield axis.role, float(found.value)
                break


def _dominated(axes: Sequence[Axis], points: Sequence[Point]) -> dict[str, tuple[str, ...]]:
    roles = [axis.role for axis in axes]
    ranked = {point.label: [point.values[role] for role in roles] for point in points if point.ranked.issuperset(roles)}
    return pareto(ranked, [axis.better for axis in axes]) if len(axes) > 1 else {}
