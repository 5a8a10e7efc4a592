"""The verdict: which recipes are better than the baseline, by both features.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from collections.abc import Iterator

from examples.recipes.plan import BASELINE, FLOOR
from examples.studies.mean import Claim, Rows, average, join_report, tabulate

__all__ = ["FEATURES", "FIGURES", "judge", "report"]

FEATURES = ("", " (random-conv)")
"""How the figures end that are by the data's own features, and by others."""
FIGURES = ("FD", "precision", "recall", "coverage")
_BESIDE = ("weights", "steps", "CPU s", "average", "CPU s a sample")


def judge(rows: Rows) -> Iterator[Claim]:
    """What the figures say of each recipe beside the baseline.

    Args:
        rows: Figures of each system by seed.
    """
    for recipe in rows:
        if recipe in (BASELINE, FLOOR):
            continue
        for features in FEATURES:
            ours, theirs = (average(rows, name, f"FD{features}") for name in (recipe, BASELINE))
            text = f"{recipe} has a lower FD{features} than {BASELINE}, by more than both errors"
            yield Claim(text, f"{ours} against {theirs}", theirs.exceeds(ours))


def report(rows: Rows) -> str:
    """The tables and the verdict, Markdown."""
    tables = [tabulate(rows, [f"{figure}{end}" for figure in FIGURES]) for end in FEATURES]
    return join_report([*tables, tabulate(rows, _BESIDE)], judge(rows))
