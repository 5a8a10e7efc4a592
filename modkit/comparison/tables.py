"""Tables of scores: which scores share a table, their footnotes, the scores of held-out images, and numbers as text.

`templates/comparison.html` lays them out. A system with several training seeds has a row for their mean and one for
each seed; the scores of held-out images stand last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from modkit.comparison.entries import System
from modkit.comparison.ranking import Ranking
from modkit.comparison.titles import parse_title

__all__ = ["COST", "ComparisonTable", "Floor", "format_number", "make_cost_table", "make_score_tables"]

COST = (
    "samples/s",
    "latency (s)",
    "NFE",
    "GFLOPs",
    "parameters",
    "peak memory (MiB)",
    "training steps/s",
)
"""Scores that measure what a system costs."""

_COLUMNS = 7


@dataclass(frozen=True)
class Floor:
    """The scores of held-out images in a table."""

    reference: str  # the name of the data set
    cells: tuple[tuple[str, str], ...]  # the scores as text, each a value and an error
    entries: Sequence[str]  # labels of the entries that have them


@dataclass(frozen=True)
class ComparisonTable:
    """A table of scores, systems by rows."""

    features: str  # which its scores have in common; empty if there are none
    by_class: str  # the score of which it holds the values by class; empty if it holds others
    names: tuple[str, ...]
    letters: Mapping[str, str]  # the footnote's letter for each reason why a score is not ranked
    floors: Sequence[Floor]  # most often one, which all entries have


def make_score_tables(systems: Sequence[System], rankings: Mapping[str, Ranking]) -> list[ComparisonTable]:
    """Makes the tables of all scores except costs: one for each kind of features and at most seven scores."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in rankings:
        if name not in COST:
            title = parse_title(name)
            groups.setdefault((title.features, title.score if title.of else ""), []).append(name)
    return [
        _make_table(*group, names[n : n + _COLUMNS], systems, rankings)
        for group, names in groups.items()
        for n in range(0, len(names), _COLUMNS)
    ]


def make_cost_table(systems: Sequence[System], rankings: Mapping[str, Ranking]) -> ComparisonTable | None:
    """Makes the table of costs, or returns None if no cost was measured."""
    names = [name for name in COST if name in rankings]
    return _make_table("", "", names, systems, rankings) if names else None


def format_number(value: float, error: float | None = None) -> tuple[str, str]:
    """Formats a value and its standard error with two digits of the error, or four digits if there is no error.

    Examples:
        >>> format_number(1.6499, 0.2368)
        ('1.65', '0.24')
        >>> format_number(1323347)
        ('1,323,347', '')
    """
    if error is None or error == 0:
        whole = float(value).is_integer() and abs(value) < 1e15
        text = f"{int(value):,}" if whole else f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
        return _use_minus(text), ""
    digits = 1 - math.floor(math.log10(error))
    if digits > 5 or abs(value) >= 1e12:
        return _use_minus(f"{value:.3g}"), f"{error:.2g}"
    if digits < 0:
        value, error = round(value, digits), round(error, digits)
    return _use_minus(f"{value:,.{max(digits, 0)}f}"), f"{error:,.{max(digits, 0)}f}"


def _make_table(
    features: str, by_class: str, names: Sequence[str], systems: Sequence[System], rankings: Mapping[str, Ranking]
) -> ComparisonTable:
    reasons = dict.fromkeys(reason for name in names for reason in rankings[name].unranked.values())
    letters = (first + second for first in ("", *ascii_lowercase) for second in ascii_lowercase)
    floors: dict[tuple[str, tuple[tuple[str, str], ...]], list[str]] = {}
    for entry in (entry for system in systems for entry in system.members):
        scores = [entry.report.floor.get(name) for name in names]
        if any(scores):
            cells = tuple(("", "") if score is None else format_number(score.value, score.error) for score in scores)
            floors.setdefault((entry.reference, cells), []).append(entry.label)
    made = [Floor(reference, cells, labels) for (reference, cells), labels in floors.items()]
    return ComparisonTable(features, by_class, tuple(names), dict(zip(reasons, letters)), made)


def _use_minus(text: str) -> str:
    return "−" + text[1:] if text.startswith("-") else text
