"""Listing: the runs below a directory, each with its parts, state, scores and tags.

Nothing is written, no part is imported, and no weights are read or verified.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from modkit.blocks import Block, format_html, format_text
from modkit.evaluation.report import Report, find_report, is_of_spec, read_reports
from modkit.runs.files import read_regular
from modkit.runs.hold import is_held
from modkit.runs.layout import LOCK, METRICS, SPEC, STATE, STATUS, TIMING, find_runs
from modkit.runs.rows import Rows
from modkit.runs.run import Run
from modkit.runs.tags import read_tags
from modkit.specs.condition import SpecCondition
from modkit.specs.node import Node
from modkit.specs.overrides import get_path
from modkit.specs.spec import Spec
from modkit.training.cursor import find_title

__all__ = ["RunList", "RunSummary", "list_runs"]

State: TypeAlias = Literal["finished", "running", "interrupted", "exported", "damaged"]

_LARGEST = 2**26  # bytes of a checkpoint's state
_DAMAGE = (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError)
_WRITTEN = (LOCK, SPEC, METRICS, TIMING, STATUS)


@dataclass(frozen=True)
class RunSummary:
    """A run as it is listed.

    Args:
        path: Its directory.
        state: `running` if a process holds it; `interrupted` if it is neither held nor finished.
        changed: When its files last changed, local time in ISO 8601, to the minute.
        name: Its name in the spec.
        model: The name of its model.
        data: The name of its data set.
        step: The last step that was logged, or that of its checkpoint.
        steps: The number of steps of all stages together, if it is known.
        scores: The scores of the report of its last checkpoint, that on data which were named where the spec has none,
            or else those last watched during training.
        best: What its best checkpoint scored when it was saved: the scores watched, first the one by which it was
            chosen, or the loss.
        tags: Its tags.
        damage: What is wrong with a damaged run.
        spec: Its resolved spec.
    """

    path: Path
    state: State
    changed: str = ""
    name: str = ""
    model: str = ""
    data: str = ""
    step: int | None = None
    steps: int | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    best: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    damage: str | None = None
    spec: Spec | None = field(default=None, repr=False)


class RunList(list[RunSummary]):
    """Runs, which print as a table, in a notebook too."""

    def describe(self) -> Iterator[Block]:
        """Yields a table with a row for each run, and what is wrong with damaged ones."""
        columns = ("run", "name", "model", "data", "step", "state", "score", "best", "changed", "tags")
        rows = [
            [
                *(str(one.path), one.name, one.model, one.data),
                "/".join(str(number) for number in (one.step, one.steps) if number is not None),
                *(one.state, _format_first(one.scores), _format_first(one.best), one.changed, ", ".join(one.tags)),
            ]
            for one in self
        ]
        yield (columns, rows) if rows else "no runs"
        yield from (f"damaged: {one.path}: {one.damage}" for one in self if one.damage is not None)

    def __str__(self) -> str:
        return format_text(self.describe())

    def _repr_html_(self) -> str:
        return format_html(self.describe())


def list_runs(
    folder: str | os.PathLike[str] = "runs", *, where: Sequence[str] = (), tags: Sequence[str] = ()
) -> RunList:
    """Lists the runs in a directory and below it; one with a file that cannot be read is listed as damaged.

    Args:
        folder: The directory.
        where: Conditions `path=value` that the resolved specs must meet: `model.prior.sampler=ddim`, or any end of a
            path (`sampler.steps=50`). A damaged run meets none.
        tags: Tags that the runs must have.

    Raises:
        ValueError: If the directory does not exist, or a condition is malformed.

    Examples:
        >>> list_runs("nowhere")
        Traceback (most recent call last):
        ValueError: expected a directory of runs, got nowhere
    """
    conditions = [SpecCondition.read(text) for text in where]
    if not Path(folder).is_dir():
        raise ValueError(f"expected a directory of runs, got {os.fspath(folder)}")
    listed = [_describe(path) for path in find_runs(Path(folder))]
    return RunList(
        one
        for one in listed
        if set(tags) <= set(one.tags)
        and all(one.spec is not None and condition.holds(one.spec) for condition in conditions)
    )


def _describe(path: Path) -> RunSummary:
    """Describes a run; what cannot be read makes it a damaged one, with what can be."""
    listed = RunSummary(path, "running" if is_held(path) else "damaged", _find_date(path))
    try:
        listed = replace(listed, tags=read_tags(path))
        run = Run.open(path)
        spec = Spec.from_yaml(run.spec_text, str(path / SPEC))
        listed = replace(listed, name=spec.name, spec=spec, model=_get_use(spec.model), data=_get_use(spec.data))
        return _add_progress(listed, run)
    except _DAMAGE as error:
        if listed.state == "running":  # its first files may be missing, or just being written
            return listed
        return replace(listed, damage=str(error) or repr(error))


def _add_progress(listed: RunSummary, run: Run) -> RunSummary:
    state: State = "exported" if run.exported else "finished" if run.finished else "interrupted"
    kept, time = run.kept, Rows(run.path / TIMING).read_last() or {}
    saved = kept[-1].rpartition("-")[2] if kept else ""
    rows = [] if run.exported else run.read_metrics()
    report = find_report(run) or (_find_report_on_data(run) if listed.spec and listed.spec.data is None else None)
    last: Mapping[str, Any] = next((row["scores"] for row in reversed(rows) if "scores" in row), {})
    scores = last if report is None else {name: one.value for name, one in report.scores.items()}
    return replace(
        listed,
        state="running" if listed.state == "running" else state,
        step=_read_count(time.get("step", int(saved) if saved.isdecimal() else None)),
        steps=_read_count(time.get("steps")),
        scores=_read_numbers(scores),
        best=_read_numbers({} if run.exported else _find_best(run, rows, listed.spec)),
    )


def _find_report_on_data(run: Run) -> Report | None:
    """Finds the first report, by name, of a run whose spec has no data: of what it is now, on data that were given."""
    last = next(reversed(run.kept), None)
    for report in read_reports(run.path):
        changed = {get_path(one)[0] for one in report.overrides}
        if changed == {"data"} and not report.choices and report.checkpoint == last and is_of_spec(report, run):
            return report
    return None


def _find_best(run: Run, rows: Sequence[Mapping[str, Any]], spec: Spec | None) -> Mapping[str, float]:
    """Finds what was watched at the best checkpoint."""
    if not run.kept:
        return {}
    state = json.loads(read_regular(run.checkpoints / run.kept[-1] / STATE, _LARGEST))
    name, criterion = state["cursor"]["best_name"], state["cursor"].get("criterion")
    if name is None:
        return {}
    step = int(name.rpartition("-")[2])
    before = [row for row in rows if row["step"] <= step]
    settings = spec.train.get("checkpoints") if spec and spec.train else None
    loss = settings.get("best") if isinstance(settings, Node) else None
    if not isinstance(loss, str):
        watched: Mapping[str, float] = next((row["scores"] for row in reversed(before) if "scores" in row), {})
        chosen = find_title(criterion)
        return {title: watched[title] for title in sorted(watched, key=lambda title: title != chosen)}
    return next(({loss: row["losses"][loss]} for row in reversed(before) if loss in row.get("losses", {})), {})


def _find_date(path: Path) -> str:
    """Finds when the files of a run last changed."""
    times = []
    for name in _WRITTEN:
        try:
            times.append(os.lstat(path / name).st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(max(times)).isoformat(" ", "minutes") if times else ""


def _get_use(node: Node | None) -> str:
    return "" if node is None else str(node.use or node.get("path") or "")


def _read_count(number: object) -> int | None:
    if number is not None and (type(number) is not int or not 0 <= number < 2**63):
        raise ValueError(f"expected a number of steps, got {number!r}")
    return number


def _read_numbers(found: Mapping[str, Any]) -> dict[str, float]:
    if any(type(value) not in (int, float) for value in found.values()):
        raise ValueError(f"expected numbers as scores, got {dict(found)!r}")
    return dict(found)


def _format_first(scores: Mapping[str, float]) -> str:
    return next((f"{name} {value:.4g}" for name, value in scores.items()), "")
