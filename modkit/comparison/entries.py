"""Entries: the reports of runs, each with its resolved spec. Systems: entries that differ only in the training seed.

Entries whose data had other content when they were measured differ in more than that, even if their specs are equal.

Reports of what a run no longer is are left out: of a spec before a change, or of a checkpoint that is no longer the
last or the best, unless it was asked for by its name.

An entry is labelled `NAME`, or `NAME sampler=heun` if it was evaluated with overrides, and `NAME checkpoint=best` if a
checkpoint or precision was asked for. If its run was evaluated both without and with overrides, as in a sweep over
samplers, the entry without is the base of the others, and its label has its own values of what they override:
`NAME (base: sampler=ddim)`. Equal labels are extended by the name of the run's directory and, if they are still equal,
by its path.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modkit.building.change import check_model
from modkit.building.difference import format_value
from modkit.building.local import list_local
from modkit.building.migration import load_current_spec
from modkit.building.plan import plan
from modkit.building.session import Composed, open_data, restore_parts
from modkit.comparison.ranking import Measured, average
from modkit.comparison.references import name_references
from modkit.errors import SpecError, split
from modkit.evaluation.report import Report, is_of_spec, read_reports
from modkit.kinds import Data
from modkit.runs.run import Run
from modkit.specs.node import Node, Value, walk
from modkit.specs.overrides import apply, get_path
from modkit.specs.spec import Spec
from modkit.types import Score

__all__ = ["RunEvaluation", "System", "collect", "group"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunEvaluation:
    """One evaluation of a run."""

    label: str  # its label on the page
    run: Run
    report: Report
    spec: Spec  # the run's resolved spec with the report's overrides applied, without what has no effect in it
    data: Data  # the data set, of the same overrides, as it is now
    reference: str  # the name of the data set that it was measured on
    model: Composed | None = None  # what has the run's local parts

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.spec.at("train.seed"))  # type: ignore[arg-type]

    @property
    def batch_size(self) -> int:
        """Samples in a training step."""
        return int(self.spec.at("train.batch_size"))  # type: ignore[arg-type]

    @property
    def data_key(self) -> str:
        """Hash of the data that it was measured on; a report of an earlier version has that of the training data."""
        return str(self.report.data or self.run.lock.get("data") or self.data.key)

    @property
    def changed(self) -> bool:
        """Whether the content of the data has changed since it was measured."""
        return self.data.key != self.data_key

    @cached_property
    def parts(self) -> int:
        """Number of parts in the model."""
        inside = (value for _, value in walk(Node({"model": self.spec.model})))
        return sum(isinstance(value, Node) and value.use is not None for value in inside)


@dataclass(frozen=True)
class System:
    """One entry, or several that differ only in the training seed."""

    label: str  # its label on the page
    members: tuple[RunEvaluation, ...]

    @property
    def names(self) -> list[str]:
        """Names of the scores that every member has."""
        first, *others = (entry.report.scores for entry in self.members)
        return [name for name in first if all(name in other for other in others)]

    def get_score(self, name: str) -> Score | None:
        """Returns a score, or its mean over the seeds; None if it is missing or the seeds were measured differently."""
        if name not in self.names:
            return None
        scores = [entry.report.scores[name] for entry in self.members]
        return average(scores) if len(scores) > 1 else scores[0]

    def get_measured(self, name: str) -> Measured | None:
        """Returns the same score together with the data that it was measured on."""
        score = self.get_score(name)
        first = self.members[0]
        return None if score is None else Measured(score, first.data_key, first.reference)


def collect(
    runs: Sequence[Run | str | PathLike[str]],
    overrides: Sequence[str] = (),
    models: Mapping[Any, Composed] = MappingProxyType({}),
    data: Mapping[Any, Any] = MappingProxyType({}),
) -> list[RunEvaluation]:
    """Collects the entries of runs in their order: the report of each run, then its reports with overrides.

    Reports of what a run no longer is are left out; a warning names them.

    Args:
        runs: The runs, or their directories.
        overrides: Of the data, which say where these are now.
        models: Models that have the local parts of runs, by run or directory.
        data: Data of runs whose specs do not have them, in the same way.

    Raises:
        ValueError: If there is no run, or if a run is given twice, has local parts and no model, no report of what it
            is now, or a damaged report, if an override is not of the data, or models or data are of none of the runs.
    """
    if odd := [one for one in overrides if get_path(one)[0] != "data"]:
        raise ValueError(f"compare expects overrides of `data`, which say where it is now, got {', '.join(odd)}")
    if not runs:
        raise ValueError("compare expects at least one run, got none")
    found = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    twice = [str(path) for path, count in Counter(map(_find_folder, found)).items() if count > 1]
    if twice:
        raise ValueError(f"compare expects each run once, got {', '.join(twice)} several times")
    models, data = _index_by_folder(models, found), _index_by_folder(data, found)
    kept = [(run, load_current_spec(run), read_reports(run.path)) for run in found]
    entries = []
    for run, spec, every in kept:
        model = models.get(_find_folder(run))
        if (local := list_local(Node({"model": spec.model}))) and model is None:
            raise ValueError(
                f"compare expects runs whose models it can load by name, to draw samples of them, got {run.path} "
                f"with local parts: {', '.join(local)}; give a function that composes its model: models={{run: make}}"
            )
        spec, given = restore_parts(run, spec, model, data.get(_find_folder(run)))
        reasons = [_explain_outdated(run, report) or _explain_untrained(run, spec, report) for report in every]
        reports = [report for report, reason in zip(every, reasons) if reason is None]
        left = [f"{report.title} ({reason})" for report, reason in zip(every, reasons) if reason]
        if not reports:
            had = f" with {', '.join(left)}" if left else ""
            hint = f"evaluate it with: modkit evaluate {run.path}"
            raise ValueError(f"compare expects runs that were evaluated, got {run.path}{had}; {hint}")
        for words in left:
            _logger.warning("%s: left out %s", run.path, words)
        opened: dict[Value, Data] = {}
        for report in reports:
            changed = apply(spec, report.overrides)[0]
            if changed.data not in opened:
                now = [*report.overrides, *overrides]
                opened[changed.data] = open_data(run, now, spec=spec) if given is None else given
            entries.append(RunEvaluation("", run, report, plan(changed).resolved, opened[changed.data], "", model))
    names = name_references({entry.data_key: entry.spec.data or entry.run.lock.get("data_name") for entry in entries})
    return [replace(entry, reference=names[entry.data_key]) for entry in entries]


def group(entries: Sequence[RunEvaluation]) -> list[System]:
    """Groups entries into systems and labels both."""
    groups: dict[tuple[Node, str, tuple[str, ...]], list[RunEvaluation]] = {}
    for entry in entries:
        same = (_drop_name_and_seed(entry.spec), entry.data_key, entry.report.choices)
        groups.setdefault(same, []).append(entry)
    made: list[list[RunEvaluation]] = []
    for members in groups.values():
        distinct = len({entry.seed for entry in members}) == len(members)
        made += [members] if distinct else [[entry] for entry in members]
    several = [entry for members in made if len(members) > 1 for entry in members]
    bases = [_describe_base(members, entries) for members in made]
    labels = iter(_choose_labels([*map(_list_labels, made, bases), *(_list_labels([one], "")[1:] for one in several)]))
    systems = []
    for name, members in [(next(labels), members) for members in made]:
        labelled = [replace(entry, label=next(labels) if len(members) > 1 else name) for entry in members]
        systems.append(System(name, tuple(labelled)))
    return systems


def _index_by_folder(given: Mapping[Any, Any], runs: Sequence[Run]) -> dict[Path, Any]:
    """Indexes models or data of runs by their directories."""
    found = {_find_folder(run): one for run, one in given.items()}
    if others := found.keys() - set(map(_find_folder, runs)):
        listed = ", ".join(map(str, others))
        raise ValueError(f"compare expects models and data of the runs that it is given, got one of {listed}")
    return found


def _find_folder(run: Run | str | PathLike[str]) -> Path:
    """Finds the directory of a run, which tells runs apart."""
    return Path(run.path if isinstance(run, Run) else run).resolve()


def _explain_outdated(run: Run, report: Report) -> str | None:
    """Explains why a report is not of what a run is now; None if it is, or does not name what it is of."""
    if not is_of_spec(report, run):
        return "the run's spec has changed since"
    asked = report.settings.get("checkpoint")
    if report.checkpoint is None or run.exported or asked not in (None, "best"):
        return None
    try:
        now = run.find_checkpoint_name(asked)
    except ValueError as error:
        return str(error)
    return None if report.checkpoint == now else f"the {asked or 'last'} checkpoint is {now} now"


def _explain_untrained(run: Run, spec: Spec, report: Report) -> str | None:
    """Explains which overrides of a report, by an earlier version, change what the run was trained with, or none."""
    planned = plan(apply(spec, report.overrides)[0]) if report.overrides else None
    try:
        if planned:
            check_model(run, spec, planned)
    except SpecError as error:
        return f"it changes {', '.join(one.path for one in error.problems)}, with which the run was trained"
    return None


def _drop_name_and_seed(spec: Spec) -> Node:
    """Returns the spec without its name and training seed."""
    train = Node({key: value for key, value in (spec.train or Node({})).items() if key != "seed"})
    return Node({**{key: value for key, value in spec.tree.items() if key != "name"}, "train": train})


def _describe_base(members: Sequence[RunEvaluation], entries: Sequence[RunEvaluation]) -> str:
    """Describes the base of other entries of its runs by its values of what they override; empty if it is no base."""
    entry = members[0]
    if entry.report.overrides:
        return ""
    runs = {member.run.path for member in members}
    others = [one.report.overrides for one in entries if one.run.path in runs]
    found = {override.partition("=")[0].strip() for overrides in others for override in overrides}
    paths = sorted(found, key=lambda path: (len(split(path)), path))
    values = {path: entry.spec.at(path) for path in paths if _has_value(entry.spec, path)}
    shown = [
        f"{_shorten(entry, path)}={value.use if isinstance(value, Node) else format_value(value)}"
        for path, value in values.items()
    ]
    return " ".join(["base:", *shown]) if paths else ""


def _has_value(spec: Spec, path: str) -> bool:
    try:
        spec.at(path)
    except SpecError:
        return False
    return True


def _list_labels(members: Sequence[RunEvaluation], base: str) -> list[str]:
    """Lists possible labels of entries that differ only in their seed, each longer than the one before.

    `base` describes them if they are the base of others.
    """
    first, paths = members[0], [entry.run.path for entry in members]
    changes = [override.partition("=")[::2] for override in first.report.overrides]
    asked = first.report.choices
    short = " ".join([first.spec.name, *(f"{_shorten(first, path)}={value}" for path, value in changes), *asked])
    full = " ".join([first.spec.name, *first.report.overrides, *asked])
    names = ", ".join(path.resolve().name for path in paths)
    more = f"; {base}" if base else ""
    whole = f"{full} ({', '.join(map(str, paths))}{more})"
    return [f"{short} ({base})" if base else short, f"{short} ({names}{more})", f"{full} ({names}{more})", whole]


def _shorten(entry: RunEvaluation, path: str) -> str:
    """Returns the end of a path that identifies it: `sampler` for a slot, `sampler.steps` for a part's parameter."""
    try:
        slot = isinstance(entry.spec.at(path.strip()), Node)
        parts = [str(part) for part in split(path.strip())]
    except SpecError:
        return path
    return ".".join(parts[-1:] if slot else parts[-2:])


def _choose_labels(candidates: Sequence[Sequence[str]]) -> list[str]:
    """Chooses the first candidate of each, or the next one while several are equal."""
    levels = [0] * len(candidates)
    while True:
        labels = [names[level] for names, level in zip(candidates, levels)]
        counts = Counter(labels)
        clashing = [n for n, label in enumerate(labels) if counts[label] > 1 and levels[n] + 1 < len(candidates[n])]
        if not clashing:
            return labels
        for number in clashing:
            levels[number] += 1
