"""Reports: the scores of one evaluation with everything they depend on, and the JSON files in which runs store them.

    RUN/evaluation.json             the model of the run's spec
    RUN/evaluations/CHANGES.json    the model with overrides (`model.prior.sampler=ddim`), of a checkpoint that was
                                    asked for (`checkpoint=step-00000500`), in another precision (`precision=bf16`)

A file is replaced as a whole, so a reader never finds an incomplete report. A new report of the same model, measured in
the same way, keeps the scores of other metrics; the scores that any other replaces are named in a warning.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from modkit.blocks import Block, format_html, format_text
from modkit.runs.files import hash_data, make_own_folder, make_safe_name, read_regular, replace_file
from modkit.runs.hold import take_turns
from modkit.runs.run import Run
from modkit.specs.overrides import normalize
from modkit.types import Score

__all__ = ["Report", "find_report", "format_options", "is_of_spec", "locate_report", "read_reports"]

_logger = logging.getLogger(__name__)
_FORMAT = 1
_KEPT = "measured earlier, in the same way: "  # how a note of scores that were kept begins
# options that need not agree: others have their outcome, and features, classes and k are told by each score
_TOLD = {"checkpoint", "features", "k", "metrics", "num", "per_class", "seed"}
_LONGEST = 200
_LARGEST = 2**26  # bytes of a report; a usual one has thousands


@dataclass(frozen=True)
class Report:
    """The scores of one evaluation.

    Args:
        scores: Scores by name; the name includes the features.
        counts: Number of samples of each source.
        seed: Seed of random draws.
        notes: Remarks for the reader, such as resizing and warnings of metrics.
        floor: Scores of held-out images in place of samples, by the same names; empty if not measured.
        overrides: The overrides of the run's spec.
        checkpoint: Name of the run's checkpoint that was measured; None if no run was measured.
        settings: Arguments of `evaluate_run` that differ from its defaults; objects are `<Class>`.
        spec: Hash of the run's spec, before the overrides; None if no run was measured, or by an earlier version.
        data: Hash of the content and preprocessing of the data that were measured on, their `key`; None if no run was
            measured, or by an earlier version.

    Examples:
        >>> report = Report({"FD (pixels)": Score(2.5, 0.1, "lower")}, {"real": 64, "fake": 64}, seed=0)
        >>> Report.from_json(report.to_json()) == report
        True
    """

    scores: Mapping[str, Score]
    counts: Mapping[str, int]
    seed: int
    notes: tuple[str, ...] = ()
    floor: Mapping[str, Score] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    checkpoint: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    spec: str | None = None
    data: str | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """What was asked for in place of the last checkpoint and the run's precision: `checkpoint=best`."""
        return tuple(f"{name}={self.settings[name]}" for name in ("checkpoint", "precision") if name in self.settings)

    @property
    def title(self) -> str:
        """What a message calls it: `the report of step-00000500 with model.sampler=ddim`."""
        changes = " ".join((*self.overrides, *self.choices))
        return f"the report of {self.checkpoint or 'no checkpoint'}{changes and f' with {changes}'}"

    def describe(self) -> Iterator[Block]:
        """Describes the report: a table of its scores with its floor, its counts and notes."""
        floor = {name: f"{score.value:.4g}" for name, score in self.floor.items()}
        columns = ["score", "value", *(["held-out images"] if floor else []), "± standard error", "better"]
        rows = [
            [
                name,
                f"{score.value:.4g}",
                *([floor.get(name, "")] if floor else []),
                "" if score.error is None else f"{score.error:.2g}",
                score.better or "",
            ]
            for name, score in self.scores.items()
        ]
        yield columns, rows
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        yield f"{counts}; seed {self.seed}"
        yield from (f"note: {note}" for note in self.notes)

    def __str__(self) -> str:
        return format_text(self.describe())

    def _repr_html_(self) -> str:
        """In a notebook: the same as a table."""
        return format_html(self.describe())

    def drop_undefined(self) -> Report:
        """Returns the report without numbers that are not finite, for which JSON has no place; notes name scores."""
        scores, unclear = _keep_finite(self.scores)
        floor, of_floor = _keep_finite(self.floor)
        notes = (*self.notes, *unclear, *(f"held-out images: {note}" for note in of_floor))
        return replace(self, scores=scores, floor=floor, notes=notes)

    def to_json(self) -> str:
        """Returns the report as JSON.

        Raises:
            ValueError: If a number is not finite.
        """
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Reads a report that `to_json` wrote.

        Raises:
            ValueError: If it is not such a report.
        """
        try:
            found = json.loads(text)
            if found.pop("format") != _FORMAT:
                raise ValueError(f"expected format {_FORMAT}")
            for name in ("scores", "floor"):
                found[name] = {key: _read_score(value) for key, value in found[name].items()}
            report = cls(**{**found, **{name: tuple(found[name]) for name in ("notes", "overrides")}})
            _check_plain(report)
            return report
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"Report.from_json expects what Report.to_json wrote, got {error!r}") from error

    @classmethod
    def read(cls, path: Path) -> Report:
        """Reads a report from a file that `save` wrote.

        Raises:
            OSError: If it cannot be opened.
            ValueError: If it is not such a report.
        """
        return cls.from_json(read_regular(path, _LARGEST))

    def save(self, run: Path) -> Path:
        """Writes the report into a run's directory, in place of one with the same overrides, checkpoint and precision.

        Scores of other metrics that were measured of the same model in the same way are kept, also those that another
        process saves at the same time. A warning tells what is replaced otherwise.

        Raises:
            ValueError: If the folder of reports is a link.
        """
        checkpoint = self.checkpoint if "checkpoint" in self.settings else None
        path = locate_report(run, self.overrides, checkpoint=checkpoint, precision=self.settings.get("precision"))
        if path.parent != run:
            make_own_folder(path.parent)
        with take_turns(run):
            replace_file(path, _keep_others(path, self).to_json().encode())
        return path


def format_options(settings: Mapping[str, Any]) -> list[str]:
    """Formats a report's `settings` as options of `modkit evaluate`.

    Examples:
        >>> format_options({"num": 32, "per_class": True})
        ['-n', '32', '--per-class']
    """
    options = []
    for name, value in settings.items():
        flag = {"num": "-n", "k": "-k"}.get(name, f"--{name.replace('_', '-')}")
        values = [] if value is True else [",".join(map(str, value)) if isinstance(value, list) else str(value)]
        options += [flag, *values]
    return options


def locate_report(
    run: Path, overrides: Sequence[str] = (), *, checkpoint: str | None = None, precision: str | None = None
) -> Path:
    """Returns the path of a run's report for its model with `overrides`.

    Args:
        run: The run's directory.
        overrides: The overrides; their order and those that a later one replaces make no difference.
        checkpoint: Name of the checkpoint if one was asked for, else None.
        precision: The precision if another than the run's was asked for, else None.

    Examples:
        >>> locate_report(Path("runs/a"), ["model.sampler=ddim"], precision="bf16").as_posix()
        'runs/a/evaluations/model.sampler=ddim,precision=bf16.json'
    """
    return _locate(run, normalize(overrides), checkpoint, precision)


def _locate(run: Path, overrides: Sequence[str], checkpoint: str | None, precision: str | None = None) -> Path:
    asked = {"checkpoint": checkpoint, "precision": precision}
    changes = [*overrides, *(f"{name}={value}" for name, value in asked.items() if value is not None)]
    if not changes:
        return run / "evaluation.json"
    return run / "evaluations" / f"{make_safe_name(','.join(changes), _LONGEST)}.json"


def is_of_spec(report: Report, run: Run) -> bool:
    """Whether a report is of a run's present spec, rather than of one before a revision."""
    # that of an earlier version has no hash; a run without revisions has had one spec alone, an export has another's
    return run.exported or report.spec == hash_data(run.spec_text) or (report.spec is None and not run.revisions)


def find_report(run: Run, overrides: Sequence[str] = (), *, checkpoint: str | None = None) -> Report | None:
    """Finds the report of what a run is now: of its last checkpoint, by its present spec with `overrides`.

    Args:
        run: The run.
        overrides: The overrides.
        checkpoint: Name of the checkpoint; the last one, intact or not, if None.

    Returns:
        The report; None if there is none, or one of another checkpoint or spec.

    Raises:
        ValueError: If the file is damaged; the message names it.
    """
    last = checkpoint or next(reversed(run.kept), None)
    orders = (normalize(overrides), tuple(overrides))  # an earlier version kept the order in which they were given
    paths = dict.fromkeys(_locate(run.path, order, name) for order in orders for name in (None, last))
    reports = (_read(path) for path in paths if path.exists())
    return next((one for one in reports if is_of_spec(one, run) and one.checkpoint == last), None)


def read_reports(run: Path) -> list[Report]:
    """Reads the reports of a run: first that of its spec, then those with overrides, by name.

    Raises:
        ValueError: If a file is damaged; the message names it.
    """
    first = locate_report(run)
    paths = [*([first] if first.exists() else []), *sorted((run / "evaluations").glob("*.json"))]
    return [*map(_read, paths)]


def _read(path: Path) -> Report:
    try:
        return Report.read(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _keep_others(path: Path, report: Report) -> Report:
    """Adds scores of other metrics from the report at a path, if it is of the same model, measured in the same way.

    A warning tells which scores are lost otherwise.
    """
    try:
        former = Report.read(path)
    except (OSError, ValueError):  # there is none, or nothing that could be kept
        return report
    if not former.scores:
        return report
    sets = former.counts.keys() & report.counts.keys()  # each metric has sets of its own
    ways = [_describe_way(one, sets) for one in (former, report)]
    if other := [name for name in ways[0] if ways[0][name] != ways[1][name]]:
        said = f"{path} was {former.title}, seed {former.seed}: {', '.join(former.scores)}"
        _logger.warning("%s; it is replaced by one with other %s", said, ", ".join(other))
        return report
    kept = [name for name in former.scores if name not in report.scores]
    if not kept:
        return report
    notes = [note for note in former.notes if not note.startswith(_KEPT)]
    return replace(
        report,
        scores={**former.scores, **report.scores},
        counts={**former.counts, **report.counts},
        floor={**former.floor, **report.floor},
        notes=tuple(dict.fromkeys([*notes, *report.notes, f"{_KEPT}{', '.join(kept)}"])),
    )


def _describe_way(report: Report, sets: Collection[str]) -> dict[str, Any]:
    """Describes what was measured, and how, but for what each score tells; counts are those of `sets`."""
    fixed = {name: getattr(report, name) for name in ("checkpoint", "spec", "data", "seed")}
    counts = {name: report.counts[name] for name in sets}
    options = {name: value for name, value in report.settings.items() if name not in _TOLD}
    return {**fixed, "counts": counts, "options": options}


def _check_plain(report: Report) -> None:
    """Checks the types of what is shown: numbers of samples, a seed, texts."""
    scores = [*report.scores.values(), *report.floor.values()]
    counts = [count for counted in (report.counts, *(score.counts for score in scores)) for count in counted.values()]
    texts = [*report.notes, *report.overrides, *(text for score in scores for text in score.warnings)]
    texts += [text for text in (report.checkpoint, report.spec, report.data) if text is not None]
    if any(type(number) is not int or abs(number) >= 2**63 for number in (report.seed, *counts)):
        raise ValueError("expected counts and the seed to be whole numbers")
    if any(type(text) is not str for text in texts):
        raise ValueError("expected notes, warnings, overrides, the checkpoint and the hashes to be texts")
    if not all(isinstance(one, dict) for one in (report.settings, *(score.settings for score in scores))):
        raise ValueError("expected settings by name")


def _keep_finite(scores: Mapping[str, Score]) -> tuple[dict[str, Score], list[str]]:
    """Keeps scores that are finite, without errors and details that are not; notes say what is left out."""
    kept, notes = {}, []
    for title, score in scores.items():
        if not math.isfinite(score.value):
            notes.append(f"{title} came out as {score.value} and is left out")
            continue
        if score.error is not None and not math.isfinite(score.error):
            notes.append(f"{title}: its standard error came out as {score.error} and is left out")
            score = replace(score, error=None)
        kept[title] = replace(score, details=_remove_undefined(score.details))
    return kept, notes


def _remove_undefined(found: Any) -> Any:
    """Returns plain JSON in which None stands for numbers that are not finite."""
    if isinstance(found, Mapping):
        return {name: _remove_undefined(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [*map(_remove_undefined, found)]
    return None if isinstance(found, float) and not math.isfinite(found) else found


def _read_score(value: Any) -> Score:
    score = Score(**{**value, "warnings": tuple(value["warnings"])})
    for number in (score.value, 0.0 if score.error is None else score.error):
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"expected a number as a score's value and error, got {number!r}")
    if score.better not in ("lower", "higher", None):
        raise ValueError(f"expected `better` to be 'lower', 'higher' or null, got {score.better!r}")
    return score
