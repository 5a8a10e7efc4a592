"""Tables of scores as a page shows them: values with errors, what is best or close to it, and why one is not ranked.

A system of several training seeds has a row for their mean and one for each; held-out images, the floor, stand last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modkit.comparison.entries import System
from modkit.comparison.ranking import Ranking
from modkit.comparison.titles import taken_apart
from modkit.types import Score

__all__ = ["COST", "Cell", "Column", "Row", "Table", "cost_table", "number", "score_tables"]

COST = (
    "samples/s",
    "latency (s)",
    "NFE",
    "GFLOPs",
    "parameters",
    "peak memory (MiB)",
    "training steps/s",
)
"""Scores that say what a system costs."""

_COLUMNS = 7


@dataclass(frozen=True)
class Column:
    """A score's name and direction (`lower`, `higher` or nothing)."""

    name: str
    better: str = ""


@dataclass(frozen=True)
class Cell:
    """A value as text.

    Args:
        value: The number; empty where there is none.
        error: Its standard error.
        mark: `best`, `close` or nothing.
        note: The footnote's letter.
    """

    value: str = ""
    error: str = ""
    mark: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A row: a `system`, one `seed` of it or the `floor`."""

    label: str
    kind: str
    cells: tuple[Cell, ...]
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        caption: What its scores have in common: their features, or nothing.
        columns: Its columns.
        rows: Its rows.
        notes: Footnotes by letter.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: Mapping[str, str] = field(default_factory=dict)


def score_tables(systems: Sequence[System], rankings: Mapping[str, Ranking]) -> list[Table]:
    """Tables of all scores but those of cost, one for each kind of features and at most seven scores.

    Args:
        systems: The systems.
        rankings: The ranking of each score.
    """
    names = [name for name in rankings if name not in COST]
    tables = []
    for caption in dict.fromkeys(map(_caption, names)):
        same = [name for name in names if _caption(name) == caption]
        tables += [_table(caption, same[n : n + _COLUMNS], systems, rankings) for n in range(0, len(same), _COLUMNS)]
    return tables


def cost_table(systems: Sequence[System], rankings: Mapping[str, Ranking]) -> Table | None:
    """The table of costs, or None where nothing was measured."""
    names = [name for name in COST if name in rankings]
    return _table("", names, systems, rankings) if names else None


def number(value: float, error: float | None = None) -> tuple[str, str]:
    """A value and its standard error as text: two digits of the error, four of a value that has none or no error."""
    if error is None or error == 0:
        whole = float(value).is_integer() and abs(value) < 1e15
        text = f"{int(value):,}" if whole else f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
        return _minus(text), ""
    digits = 1 - math.floor(math.log10(error))
    if digits > 5 or abs(value) >= 1e12:
        return _minus(f"{value:.3g}"), f"{error:.2g}"
    if digits < 0:
        value, error = round(value, digits), round(error, digits)
    return _minus(f"{value:,.{max(digits, 0)}f}"), f"{error:,.{max(digits, 0)}f}"


def _caption(name: str) -> str:
    """What the scores of a table have in common: the features and, of classes, the score."""
    title = taken_apart(name)
    return f"{title.features}, {title.score} by class" if title.of else title.features


def _minus(text: str) -> str:
    return "−" + text[1:] if text.startswith("-") else text


def _table(caption: str, names: Sequence[str], systems: Sequence[System], rankings: Mapping[str, Ranking]) -> Table:
    letters: dict[str, str] = {}
    for name in names:
        for reason in rankings[name].unranked.values():
            letters.setdefault(reason, _letter(len(letters)))
    columns = tuple(Column(taken_apart(name).short, rankings[name].better or "") for name in names)
    rows = [row for system in systems for row in _rows(system, names, rankings, letters)]
    rows += _floors(systems, names)
    return Table(caption, columns, tuple(rows), {letter: reason for reason, letter in letters.items()})


def _rows(
    system: System, names: Sequence[str], rankings: Mapping[str, Ranking], letters: Mapping[str, str]
) -> Iterator[Row]:
    cells = [_ranked(system, name, rankings[name], letters) for name in names]
    if len(system.members) == 1:
        yield Row(system.label, "system", tuple(cells))
        return
    yield Row(system.label, "system", tuple(cells), f"mean of {len(system.members)} seeds")
    for entry in system.members:
        plain = (_cell(entry.report.scores.get(name)) for name in names)
        yield Row(entry.label, "seed", tuple(plain), f"seed {entry.seed}")


def _ranked(system: System, name: str, ranking: Ranking, letters: Mapping[str, str]) -> Cell:
    mark = ""
    if len(ranking.ranks) > 1:
        mark = "best" if system.label in ranking.best else "close" if system.label in ranking.close else ""
    return _cell(system.score(name), mark, letters.get(ranking.unranked.get(system.label, ""), ""))


def _floors(systems: Sequence[System], names: Sequence[str]) -> Iterator[Row]:
    """A row for each floor that was measured; most often all have the same."""
    floors: list[tuple[tuple[Cell, ...], list[str]]] = []
    for system in systems:
        for entry in system.members:
            cells = tuple(_cell(entry.report.floor.get(name)) for name in names)
            if not any(cell.value for cell in cells):
                continue
            same = [labels for known, labels in floors if known == cells]
            if same:
                same[0].append(entry.label)
            else:
                floors.append((cells, [entry.label]))
    for cells, labels in floors:
        yield Row("held-out images", "floor", cells, "the floor" if len(floors) == 1 else f"for {', '.join(labels)}")


def _cell(score: Score | None, mark: str = "", note: str = "") -> Cell:
    return Cell(note=note) if score is None else Cell(*number(score.value, score.error), mark, note)


def _letter(number: int) -> str:
    return "abcdefghijklmnopqrstuvwxyz"[number] if number < 26 else f"n{number}"
