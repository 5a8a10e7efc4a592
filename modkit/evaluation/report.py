"""Reports: the scores of one evaluation, with all that they depend on, and as the JSON that a run keeps.

RUN/evaluation.json             the model as its spec says
RUN/evaluations/CHANGES.json    the model with overrides (`model.prior.sampler=ddim`)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modkit.runs.files import make_safe_name, replace_file
from modkit.types import Score

__all__ = ["Report", "evaluate_options", "report_path", "saved_reports"]

_FORMAT = 1
_LONGEST = 200


@dataclass(frozen=True)
class Report:
    """The scores of one evaluation.

    Args:
        scores: Scores by name, the features in it.
        counts: Samples by set.
        seed: Seed of what was drawn.
        notes: What a reader must know: resizing, warnings of metrics.
        floor: What held-out images score in the samples' place, by the same names; empty where not measured.
        overrides: What was changed in the run's spec.
        checkpoint: Name of the run's checkpoint that was measured; None where no run was.
        settings: What `evaluate_run` was asked for beyond its defaults, by its arguments' names; `<Class>` for objects.
    """

    scores: Mapping[str, Score]
    counts: Mapping[str, int]
    seed: int
    notes: tuple[str, ...] = ()
    floor: Mapping[str, Score] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    checkpoint: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """All of it, as JSON."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Report:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: If it is something else.
        """
        try:
            found = json.loads(text)
            if found.pop("format") != _FORMAT:
                raise ValueError(f"expected format {_FORMAT}")
            for name in ("scores", "floor"):
                found[name] = {key: _score(value) for key, value in found[name].items()}
            return cls(**{**found, **{name: tuple(found[name]) for name in ("notes", "overrides")}})
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"Report.from_json expects what Report.to_json wrote: {error!r}") from error

    def save(self, run: Path) -> Path:
        """Writes it into a run's directory, in the place of one with the same overrides."""
        path = report_path(run, self.overrides)
        path.parent.mkdir(exist_ok=True)
        replace_file(path, self.to_json().encode())
        return path


def evaluate_options(settings: Mapping[str, Any]) -> list[str]:
    """The options of `modkit evaluate` that ask for what a report's `settings` say."""
    options = []
    for name, value in settings.items():
        flag = {"num": "-n", "k": "-k"}.get(name, f"--{name.replace('_', '-')}")
        values = [] if value is True else [",".join(value) if isinstance(value, list) else str(value)]
        options += [flag, *values]
    return options


def report_path(run: Path, overrides: Sequence[str] = ()) -> Path:
    """Where a run keeps the report of its model with `overrides`."""
    if not overrides:
        return run / "evaluation.json"
    return run / "evaluations" / f"{make_safe_name(','.join(overrides), _LONGEST)}.json"


def saved_reports(run: Path) -> list[Report]:
    """The reports that a run keeps: first that of its own spec, then those with overrides, by name.

    Raises:
        ValueError: If a file is damaged; says which.
    """
    first = report_path(run)
    paths = [*([first] if first.exists() else []), *sorted((run / "evaluations").glob("*.json"))]
    reports = []
    for path in paths:
        try:
            reports.append(Report.from_json(path.read_bytes()))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return reports


def _score(value: Any) -> Score:
    score = Score(**{**value, "warnings": tuple(value["warnings"])})
    for number in (score.value, 0.0 if score.error is None else score.error):
        if not isinstance(number, int | float) or not math.isfinite(number):
            raise ValueError(f"expected a number as a score's value and error, got {number!r}")
    if score.better not in ("lower", "higher", None):
        raise ValueError(f"expected 'lower', 'higher' or none as what is better, got {score.better!r}")
    return score
