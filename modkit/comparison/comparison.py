"""Comparison: what runs have measured, side by side, as one HTML page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from modkit.comparison.differences import differing
from modkit.comparison.entries import Entry, collect, grouped
from modkit.comparison.exhibits import Exhibit, exhibits
from modkit.comparison.findings import commands, measurements, sentences
from modkit.comparison.page import Material, page
from modkit.comparison.trilemma import ranking, trilemma
from modkit.runs.files import replace_file
from modkit.runs.run import Run
from modkit.specs.node import Node, Value

__all__ = ["Comparison", "compare"]

_FORMAT = 1


@dataclass(frozen=True)
class Comparison:
    """What a comparison wrote and found.

    Args:
        page: The HTML file.
        data: The JSON file beside it.
        entries: Labels of the evaluations compared.
        front: Labels of the systems on the Pareto front of quality, coverage and speed.
        findings: What the page shows, in sentences.
    """

    page: Path
    data: Path
    entries: tuple[str, ...]
    front: tuple[str, ...]
    findings: tuple[str, ...]


def compare(runs: Sequence[Run | str | PathLike[str]], out: str | PathLike[str] = "comparison.html") -> Comparison:
    """Compares all reports that runs keep.

    Args:
        runs: The runs, or their directories.
        out: The page, ending in `.html`; the JSON stands beside it.

    Raises:
        ValueError: If a run has no report (`modkit evaluate RUN` makes one), it or its data cannot be read, `out` ends
            otherwise, or matplotlib or jinja2 is not installed.
    """
    _require()
    path = Path(out)
    if path.suffix != ".html":
        raise ValueError(f"compare expects a file ending in .html, got {path}")
    systems = grouped(collect(runs))
    names = dict.fromkeys(name for s in systems for entry in s.members for name in entry.report.scores)
    entries = [entry for system in systems for entry in system.members]
    material = Material(systems, {name: ranking(systems, name) for name in names}, trilemma(systems), exhibits(entries))
    text = page(material)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".json")
    replace_file(beside, json.dumps(_plain(material), indent=1, allow_nan=False).encode())
    replace_file(path, text.encode())
    found = sentences(systems, material.rankings, material.trilemma)
    labels = tuple(entry.label for entry in entries)
    return Comparison(path, beside, labels, material.trilemma.front, tuple(found))


def _require() -> None:
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        missing = f'{error}: pip install "modkit-generative[compare]"'
        raise ValueError(f"compare expects matplotlib and jinja2, got {missing}") from error


def _plain(material: Material) -> dict[str, Any]:
    """All of it, for JSON."""
    entries, shown = material.entries, material.trilemma
    table = differing([entry.spec.tree for entry in entries])
    return {
        "format": _FORMAT,
        "findings": sentences(material.systems, material.rankings, shown),
        "entries": [_entry(entry, exhibit) for entry, exhibit in zip(entries, material.exhibits)],
        "systems": [
            {
                "label": system.label,
                "entries": [entry.label for entry in system.members],
                "scores": {name: asdict(found) for name in system.names if (found := system.score(name)) is not None},
            }
            for system in material.systems
        ],
        "differences": {
            path: {entry.label: _value(value) for entry, value in zip(entries, values)}
            for path, values in table.items()
        },
        "rankings": {name: {**asdict(found), "best": found.best} for name, found in material.rankings.items()},
        "trilemma": {
            "axes": {axis.role: {"score": axis.score, "better": axis.better} for axis in shown.axes},
            "floor": dict(shown.floor),
            "front": shown.front,
            "dominated": {label: others for label, others in shown.dominated.items() if others},
        },
        "measurements": [asdict(one) for one in measurements(entries)],
    }


def _entry(entry: Entry, exhibit: Exhibit) -> dict[str, Any]:
    report = json.loads(entry.report.to_json())
    pictures = ("grid", "pairs", "label")
    return {
        "label": entry.label,
        "run": str(entry.run.path),
        "name": entry.spec.name,
        "train_seed": entry.seed,
        "data": entry.data.key,
        "parts": entry.parts,
        "report": report,
        "samples": {key: value for key, value in asdict(exhibit).items() if key not in pictures},
        "commands": commands(entry),
    }


def _value(value: Value) -> Any:
    if isinstance(value, Node):
        return {key: _value(item) for key, item in value.items()}
    return [_value(item) for item in value] if isinstance(value, tuple) else value
