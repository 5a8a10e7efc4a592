"""The verdict: whether the bound of one system is above that of another.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from examples.studies.mean import Claim, Rows, average, join_report, tabulate

__all__ = ["claims", "report"]

_PAIRS = {
    "A ladder has a higher bound than a flat VAE of its size": ("ladder", "VAE"),
    "Training on 50 importance weights raises the bound": ("IWAE-50", "VAE"),
    "A flow has a higher bound than a diagonal posterior": ("IAF", "VAE"),
}
_COLUMNS = ("bound", "ELBO", "weights", "steps", "skipped")


def claims(rows: Rows) -> list[Claim]:
    """What the figures say of each pair of systems.

    Args:
        rows: Figures of each system by seed.
    """
    found = []
    for text, names in _PAIRS.items():
        ours, theirs = (average(rows, name, "bound") for name in names)
        found.append(Claim(f"{text}, by more than both errors", f"{ours} against {theirs}", ours.exceeds(theirs)))
    return found


def report(rows: Rows) -> str:
    """The table and the verdict, Markdown."""
    return join_report([tabulate(rows, _COLUMNS)], claims(rows))
