"""Comparison: the scores and samples of runs side by side, as one HTML page and as JSON."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from modkit.blocks import Block, format_html, format_text
from modkit.building.session import Composed
from modkit.comparison.differences import list_leaves
from modkit.comparison.entries import RunEvaluation, collect, group
from modkit.comparison.exhibits import Exhibit, make_exhibits
from modkit.comparison.findings import group_measurements, list_commands, write_findings
from modkit.comparison.page import Material, render_page
from modkit.comparison.trilemma import make_trilemma, rank_systems
from modkit.escapes import escape_controls
from modkit.runs.files import read_regular, replace_file
from modkit.runs.run import Run
from modkit.specs.node import thaw

__all__ = ["Comparison", "compare"]

_FORMAT = 1
_KEYS = {"format", "findings", "entries", "rankings"}  # of every comparison, and of no other file that modkit writes


@dataclass(frozen=True)
class Comparison:
    """The files and findings of a comparison.

    Args:
        page: The HTML file.
        data: The JSON file with the same content.
        entries: Labels of the evaluations that were compared.
        front: Labels of the systems on the Pareto front of quality, coverage and speed.
        findings: What the page shows, one sentence each.
    """

    page: Path
    data: Path
    entries: tuple[str, ...]
    front: tuple[str, ...]
    findings: tuple[str, ...]

    def describe(self) -> Iterator[Block]:
        """Describes the comparison: its findings and evaluations."""
        yield from self.findings
        yield ("evaluation", "on the front"), [(label, "yes" if label in self.front else "") for label in self.entries]

    def __str__(self) -> str:
        return format_text([*self.describe(), f"page: {self.page}, data: {self.data}"])

    def _repr_html_(self) -> str:
        """In a notebook: the same, with a link to the page."""
        files = {quote(os.fsencode(path)): html.escape(escape_controls(str(path))) for path in (self.page, self.data)}
        links = ", ".join(f'<a href="{target}">{shown}</a>' for target, shown in files.items())
        return f"{format_html(self.describe())}\n<p>{links}</p>"


def compare(
    runs: Sequence[Run | str | PathLike[str]],
    out: str | PathLike[str] = "comparison.html",
    *,
    overrides: Sequence[str] = (),
    models: Mapping[Any, Composed] = MappingProxyType({}),
    data: Mapping[Any, Any] = MappingProxyType({}),
) -> Comparison:
    """Compares all evaluations of runs on one page.

    Args:
        runs: The runs, or their directories.
        out: The page, a path ending in `.html`; the JSON file is written beside it. Those of an earlier comparison
            are replaced.
        overrides: Where the runs' data are now, if they have moved: `["data.root=/new/place"]`. The page says if the
            content differs from what was measured.
        models: For runs with local parts, which cannot be loaded by name: a model composed like the run's, or a
            function that composes one, by the run or its directory.
        data: The data of runs whose specs do not have them by name, as in `fit`, by the run or its directory.

    Raises:
        ValueError: If a run has no report of what it is now (`modkit evaluate RUN` writes one), a run or its data
            cannot be read, a run has local parts and no model, an override is not of the data, `out` does not end in
            `.html`, or another file stands where the JSON file would be written.

    Examples:
        >>> from modkit import compare
        >>> compare(["runs/a", "runs/b"], out="comparison.pdf")
        Traceback (most recent call last):
        ValueError: compare expects a file ending in .html, got comparison.pdf
        >>> compare(["runs/a", "runs/b"]).entries  # doctest: +SKIP
        ('a', 'b')
    """
    path = Path(out)
    if path.suffix != ".html":
        raise ValueError(f"compare expects a file ending in .html, got {path}")
    beside = path.with_suffix(".json")
    if os.path.lexists(beside) and not _is_comparison(beside):
        raise ValueError(
            f"compare writes {beside} beside its page and expects an earlier comparison or no file there, got another "
            "file; choose another name for the page"
        )
    systems = group(collect(runs, overrides, models, data))
    names = dict.fromkeys(name for s in systems for entry in s.members for name in entry.report.scores)
    entries = [entry for system in systems for entry in system.members]
    material = Material(
        systems, {name: rank_systems(systems, name) for name in names}, make_trilemma(systems), make_exhibits(entries)
    )
    page = render_page(material).encode()
    text = json.dumps(_make_json(material), indent=1, allow_nan=False).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(beside, text)
    replace_file(path, page)
    findings = write_findings(systems, material.rankings, material.trilemma)
    labels = tuple(entry.label for entry in entries)
    return Comparison(path, beside, labels, material.trilemma.front, tuple(findings))


def _is_comparison(path: Path) -> bool:
    """Tells whether a file holds the data of a comparison, whatever its version."""
    try:
        found = json.loads(read_regular(path))
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= _KEYS


def _make_json(material: Material) -> dict[str, Any]:
    """Returns everything that the page shows, as plain data."""
    entries, shown = material.entries, material.trilemma
    table = list_leaves([entry.spec.tree for entry in entries])
    return {
        "format": _FORMAT,
        "findings": write_findings(material.systems, material.rankings, shown),
        "entries": [_convert_entry(entry, exhibit) for entry, exhibit in zip(entries, material.exhibits)],
        "systems": [
            {
                "label": system.label,
                "entries": [entry.label for entry in system.members],
                "scores": {
                    name: asdict(found) for name in system.names if (found := system.get_score(name)) is not None
                },
            }
            for system in material.systems
        ],
        "differences": {
            path: {entry.label: thaw(value) for entry, value in zip(entries, values)} for path, values in table.items()
        },
        "rankings": {name: {**asdict(found), "best": found.best} for name, found in material.rankings.items()},
        "trilemma": {
            "axes": {axis.role: {"score": axis.score, "better": axis.better} for axis in shown.axes},
            "floor": dict(shown.floor),
            "front": shown.front,
            "dominated": {label: others for label, others in shown.dominated.items() if others},
        },
        "measurements": [asdict(one) for one in group_measurements(entries)],
    }


def _convert_entry(entry: RunEvaluation, exhibit: Exhibit) -> dict[str, Any]:
    report = json.loads(entry.report.to_json())
    pictures = ("grid", "pairs", "label")
    return {
        "label": entry.label,
        "run": str(entry.run.path),
        "name": entry.spec.name,
        "train_seed": entry.seed,
        "data": entry.data_key,
        "reference": entry.reference,
        "parts": entry.parts,
        "report": report,
        "samples": {key: value for key, value in asdict(exhibit).items() if key not in pictures},
        "commands": list_commands(entry),
    }
