r"""The report of the swap matrix: the count of cells by verdict, a table for each slot, and the reasons.

    worse:  FD - floor > 3 max(FD_base - floor, 2 error_base)      on either extractor

A cell that is worse is a defect unless `explained.json` holds its measured cause, by its name or a pattern of names.
`mended.json` tells what cells were before the defects were mended that made them worse, or refused without need.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from examples.studies.mean import Mean, table
from examples.swaps.cells import BASES, Cell

__all__ = ["judge", "make_report", "read_notes"]

_FACTOR = 3
_VERDICTS = "fine", "explained", "refused", "worse", "failed"
_OVERRIDE = re.compile(r"(, )?<override \d+>:\d+:\d+(: )?")  # which of a cell's swaps it is
_TITLES = {"product": "schedule × parametrization × sampler", "pair": "two at once"}

Row = Mapping[str, Any]


def judge(cell: Cell, found: Mapping[Cell, Row], floor: Mapping[str, Row], explained: Mapping[str, str]) -> str:
    """Returns the verdict on a cell: `fine`, `refused`, `failed`, `worse` or `explained`."""
    row = found[cell]
    if "refused" in row:
        return "refused"
    worse = "failed" if "failed" in row else "worse" if _is_worse(row, found[Cell(cell.base)], floor) else "fine"
    return "explained" if worse != "fine" and _find_cause(cell.name, explained) else worse


def make_report(found: Mapping[Cell, Row], floor: Mapping[str, Row], seconds: float) -> str:
    """Writes the tables, Markdown.

    Args:
        found: Each cell's scores, its refusal or its failure; the bases are among them.
        floor: Scores of real images, by their size.
        seconds: CPU time of a training.
    """
    explained, mended = read_notes("explained"), read_notes("mended")
    verdicts = {cell: judge(cell, found, floor, explained) for cell in found}
    distinct = {cell.name: verdict for cell, verdict in verdicts.items()}
    repaired = {name: why for name, why in mended.items() if distinct.get(name) in ("fine", "refused")}
    parts = [f"{len(distinct)} cells of {seconds:g} s; {len(repaired)} were mended.", _count(verdicts)]
    parts += [f"Floor at {size}×{size}: {_format(row)}." for size, row in floor.items()]
    parts += list(_make_tables(found, verdicts))
    flaws = {cell.name: row["failed"] for cell, row in found.items() if verdicts[cell] == "failed"}
    reasons = {cell.name: _OVERRIDE.sub("", row["refused"]) for cell, row in found.items() if "refused" in row}
    causes = {name: _find_cause(name, explained) for name, verdict in distinct.items() if verdict == "explained"}
    for title, notes in {"Failed": flaws, "Refused": reasons, "Explained": causes, "Mended": repaired}.items():
        parts += [f"## {title}", _list_reasons(notes)] if notes else []
    return "\n\n".join(parts)


def read_notes(what: str) -> dict[str, str]:
    """Reads `explained.json` or `mended.json`: sentences by names of cells, or patterns of these."""
    file = Path(__file__).parent / f"{what}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else {}


def _find_cause(name: str, explained: Mapping[str, str]) -> str:
    """The cause that the first pattern of a cell's name gives, or nothing."""
    return next((why for pattern, why in explained.items() if fnmatchcase(name, pattern)), "")


def _count(verdicts: Mapping[Cell, str]) -> str:
    """A table of the numbers of cells by base and verdict."""
    cells = {cell.name: cell for cell in verdicts}.values()  # a product repeats what is swapped alone
    counts = Counter((base, verdicts[cell]) for cell in cells for base in (cell.base, "all"))
    columns = [one for one in _VERDICTS if counts["all", one]]
    bases = [*dict.fromkeys(cell.base for cell in cells), "all"]
    return table(["base", *columns], [[base, *(str(counts[base, one]) for one in columns)] for base in bases])


def _list_reasons(notes: Mapping[str, str]) -> str:
    """Lists the cells of each reason."""
    cells = defaultdict[str, list[str]](list)
    for name, why in notes.items():
        cells[why].append(f"`{name}`")
    return "\n".join(f"- {', '.join(names)}: {why}" for why, names in cells.items())


def _make_tables(found: Mapping[Cell, Row], verdicts: Mapping[Cell, str]) -> Iterator[str]:
    """Yields a table for each slot, with a column for each base, then one for each further group of cells."""
    bases = [base for base in BASES if Cell(base) in found]
    yield "## Bases"
    yield table(["base", "FD, precision, coverage"], [[base, _format(found[Cell(base)])] for base in bases])
    alone = [cell for cell in found if cell.group == "alone" and cell.swaps]
    for slot in dict.fromkeys(cell.swaps[0].path.rpartition(".")[2] for cell in alone):
        cells = [cell for cell in alone if cell.swaps[0].path.rpartition(".")[2] == slot]
        columns = list(dict.fromkeys((cell.base, cell.swaps[0].path) for cell in cells))
        by = {(cell.base, cell.swaps[0].path, cell.swaps[0].part): cell for cell in cells}
        rows = []
        for part in dict.fromkeys(cell.swaps[0].part for cell in cells):
            here = [by.get((*column, part)) for column in columns]
            rows.append([f"`{part}`", *(_describe(found[c], verdicts[c]) if c else "" for c in here)])
        yield f"## {slot}"
        yield table([slot, *(f"{base}: {path}" for base, path in columns)], rows)
    for group, title in _TITLES.items():
        cells = [cell for cell in found if cell.group == group]
        if cells:
            yield f"## {title}"
            names = [", ".join(swap.part for swap in cell.swaps) or "base" for cell in cells]
            rows = [[c.base, name, _describe(found[c], verdicts[c])] for c, name in zip(cells, names, strict=True)]
            yield table(["base", "swaps", "FD, precision, coverage"], rows, words=2)


def _is_worse(row: Row, base: Row, floor: Mapping[str, Row]) -> bool:
    if "scores" not in base:
        return False
    least = floor[str(row["size"])]
    for name, scores in row["scores"].items():
        own = base["scores"][name]
        allowed = _FACTOR * max(own["FD"] - least["scores"][name]["FD"], 2 * own["error"])
        if scores["FD"] - least["scores"][name]["FD"] > allowed:
            return True
    return False


def _describe(row: Row, verdict: str) -> str:
    if "scores" not in row:
        return verdict
    return _format(row) if verdict == "fine" else f"{_format(row)} **{verdict}**"


def _format(row: Row) -> str:
    if "scores" not in row:
        return _get_reason(row)
    each = row["scores"].values()
    return " / ".join(f"{Mean(s['FD'], s['error'])} ({s['precision']:.2f}, {s['coverage']:.2f})" for s in each)


def _get_reason(row: Row) -> str:
    return str(row.get("refused") or row.get("failed") or "")
