"""The verdict: which rivals are better than the baseline, by which figures.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from collections.abc import Iterator

from examples.rivals.plan import FIGURES
from examples.studies.mean import Claim, Rows, average, join_report, tabulate

__all__ = ["judge", "report"]

_SCORES = ("FD", "precision", "recall", "coverage")
_FEATURES = ("", " (random-conv)")


def judge(rows: Rows) -> Iterator[Claim]:
    """What the figures say of each rival beside the baseline, which is the first system.

    Args:
        rows: Figures of each system by seed.
    """
    baseline, *rivals = rows
    for rival in rivals:
        for figure, more in FIGURES.items():
            ours, theirs = (average(rows, name, figure) for name in (rival, baseline))
            text = f"{rival} has a {'higher' if more else 'lower'} {figure} than {baseline}, by more than both errors"
            yield Claim(text, f"{ours} against {theirs}", ours.exceeds(theirs) if more else theirs.exceeds(ours))


def report(rows: Rows) -> str:
    """The tables and the verdict, Markdown."""
    tables = [tabulate(rows, [f"{score}{features}" for score in _SCORES]) for features in _FEATURES]
    return join_report([*tables, tabulate(rows, ("weights", "steps"))], judge(rows))
