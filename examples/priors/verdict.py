"""The verdict: whether the bound under a prior is above that under a standard normal.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from examples.studies.mean import Claim, Rows, average, join_report, tabulate

__all__ = ["claims", "report"]


def claims(rows: Rows) -> list[Claim]:
    """What the figures say of each prior.

    Args:
        rows: Figures of each system by seed.
    """
    theirs, found = average(rows, "normal", "bound"), []
    for name in (name for name in rows if name != "normal"):
        ours = average(rows, name, "bound")
        text = f"The prior {name} has a higher bound than a standard normal, by more than both errors"
        found.append(Claim(text, f"{ours} against {theirs}", ours.exceeds(theirs)))
    return found


def report(rows: Rows) -> str:
    """The table and the verdict, Markdown."""
    return join_report([tabulate(rows, ("bound", "ELBO", "weights"))], claims(rows))
