"""The verdict: whether a learned schedule's bound is above that of the fixed one.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from examples.studies.mean import Claim, Rows, average, join_report, tabulate

__all__ = ["claims", "report"]

_COLUMNS = ("bound", "sigma_min", "sigma_max", "steps")


def claims(rows: Rows) -> list[Claim]:
    """What the figures say of each fixed schedule.

    Args:
        rows: Figures of each system by seed.
    """
    ours, found = average(rows, "learned", "bound"), []
    for name in (name for name in rows if name != "learned"):
        theirs = average(rows, name, "bound")
        text = f"A learned schedule has a higher bound than {name}, by more than both errors"
        found.append(Claim(text, f"{ours} against {theirs}", ours.exceeds(theirs)))
    return found


def report(rows: Rows) -> str:
    """The table and the verdict, Markdown."""
    return join_report([tabulate(rows, _COLUMNS)], claims(rows))
