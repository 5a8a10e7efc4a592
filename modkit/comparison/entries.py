"""Entries: the reports that runs keep, each with its resolved spec; systems: entries that differ in the seed only.

An entry is labelled `NAME`, or `NAME sampler=ddim` for a model with overrides; where labels are equal they get the
run's directory name, and where those are equal too its path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from typing import NamedTuple

from modkit.building.plan import plan
from modkit.building.session import open_run
from modkit.comparison.ranking import Measured, averaged
from modkit.errors import SpecError, split
from modkit.evaluation.report import Report, read_reports
from modkit.kinds import Data
from modkit.runs.run import Run
from modkit.specs.node import Node
from modkit.specs.overrides import apply
from modkit.specs.spec import Spec
from modkit.types import Score

__all__ = ["Entry", "System", "collect", "grouped"]


@dataclass(frozen=True)
class Entry:
    """A report of a run.

    Args:
        label: Its name on the page.
        run: The run.
        report: The report.
        spec: The run's resolved spec with the report's overrides.
        data: The run's data set.
    """

    label: str
    run: Run
    report: Report
    spec: Spec
    data: Data

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.spec.at("train.seed"))  # type: ignore[arg-type]

    @property
    def batch_size(self) -> int:
        """Samples in a training step."""
        return int(self.spec.at("train.batch_size"))  # type: ignore[arg-type]

    @cached_property
    def parts(self) -> int:
        """Number of parts that the model is composed of."""
        return _count(self.spec.model)


@dataclass(frozen=True)
class System:
    """One entry, or several that differ in nothing but the training seed.

    Args:
        label: Its name on the page.
        members: The entries.
    """

    label: str
    members: tuple[Entry, ...]

    @property
    def names(self) -> list[str]:
        """Names of the scores that every member has."""
        first, *others = (entry.report.scores for entry in self.members)
        return [name for name in first if all(name in other for other in others)]

    def score(self, name: str) -> Score | None:
        """A score, its mean over the seeds; None where it is missing or the seeds were not measured alike."""
        if name not in self.names:
            return None
        scores = [entry.report.scores[name] for entry in self.members]
        return averaged(scores) if len(scores) > 1 else scores[0]

    def measured(self, name: str) -> Measured | None:
        """The same with the data that it was measured on."""
        score = self.score(name)
        return None if score is None else Measured(score, self.members[0].data.key)


def collect(runs: Sequence[Run | str | PathLike[str]]) -> list[Entry]:
    """The entries of runs, in their order: a run's own report, then those with overrides.

    Raises:
        ValueError: If there is no run, one is given twice, has no report or a damaged one.
    """
    if not runs:
        raise ValueError("compare expects at least one run, got none")
    found = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    twice = [str(path) for path, count in Counter(run.path.resolve() for run in found).items() if count > 1]
    if twice:
        raise ValueError(f"compare expects each run once, got {', '.join(twice)} several times")
    kept = [(run, _reports(run)) for run in found]
    entries = []
    for run, reports in kept:
        spec = Spec.from_yaml(run.spec_text, str(run.path / "spec.yaml"))
        data = open_run(run).data
        for report in reports:
            changed = plan(apply(spec, report.overrides)[0]).resolved
            entries.append(Entry("", run, report, changed, data))
    return entries


def grouped(entries: Sequence[Entry]) -> list[System]:
    """The systems of entries, all labelled."""
    groups: dict[Node, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(_identity(entry.spec), []).append(entry)
    made: list[list[Entry]] = []
    for group in groups.values():
        distinct = len({entry.seed for entry in group}) == len(group)
        made += [group] if distinct else [[entry] for entry in group]
    candidates = [list(_group_labels(group)) for group in made]
    several = [entry for group in made if len(group) > 1 for entry in group]
    labels = iter(_unique([*candidates, *(list(_labels(entry))[1:] for entry in several)]))
    names = [next(labels) for _ in made]
    systems = []
    for name, group in zip(names, made):
        members = [replace(entry, label=next(labels) if len(group) > 1 else name) for entry in group]
        systems.append(System(name, tuple(members)))
    return systems


class _Change(NamedTuple):
    path: str
    value: str


def _reports(run: Run) -> list[Report]:
    reports = read_reports(run.path)
    if not reports:
        raise ValueError(f"compare expects runs that were evaluated, got {run.path}: modkit evaluate {run.path}")
    return reports


def _count(value: object) -> int:
    if isinstance(value, Node):
        return (value.use is not None) + sum(map(_count, value.values()))
    return sum(map(_count, value)) if isinstance(value, tuple) else 0


def _identity(spec: Spec) -> Node:
    """All that a spec says but for its name and the training seed."""
    train = Node({key: value for key, value in (spec.train or Node({})).items() if key != "seed"})
    return Node({**{key: value for key, value in spec.tree.items() if key != "name"}, "train": train})


def _labels(entry: Entry) -> Iterable[str]:
    """Ever longer names."""
    changes = [_Change(*override.partition("=")[::2]) for override in entry.report.overrides]
    short = " ".join([entry.spec.name, *(f"{_last(entry, path)}={value}" for path, value in changes)])
    full = " ".join([entry.spec.name, *entry.report.overrides])
    yield short
    yield f"{short} ({entry.run.path.resolve().name})"
    yield f"{full} ({entry.run.path.resolve().name})"
    yield f"{full} ({entry.run.path})"


def _group_labels(group: Sequence[Entry]) -> Iterable[str]:
    if len(group) == 1:
        yield from _labels(group[0])
        return
    short, _, full, _ = _labels(group[0])
    yield short
    yield f"{short} ({', '.join(entry.run.path.resolve().name for entry in group)})"
    yield f"{full} ({', '.join(str(entry.run.path) for entry in group)})"


def _last(entry: Entry, path: str) -> str:
    """The end of a path that says what it is: `sampler` for a slot, `sampler.steps` for a part's parameter."""
    try:
        slot = isinstance(entry.spec.at(path.strip()), Node)
        parts = [str(part) for part in split(path.strip())]
    except SpecError:
        return path
    return ".".join(parts[-1:] if slot else parts[-2:])


def _unique(candidates: Sequence[Sequence[str]]) -> list[str]:
    """The first candidate of each, the next one where several are equal."""
    levels = [0] * len(candidates)
    while True:
        labels = [names[level] for names, level in zip(candidates, levels)]
        counts = Counter(labels)
        clashing = [n for n, label in enumerate(labels) if counts[label] > 1 and levels[n] + 1 < len(candidates[n])]
        if not clashing:
            return labels
        for number in clashing:
            levels[number] += 1
