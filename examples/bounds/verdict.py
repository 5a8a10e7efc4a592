"""The verdict: whether the bound of one system is above that of another.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from examples.studies.mean import Claim, Mean, table

__all__ = ["claims", "report"]

Rows: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]
"""By system, a row of figures a seed."""

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
        ours, theirs = (Mean.of([row["bound"] for row in rows[name]]) for name in names)
        found.append(Claim(f"{text}, by more than both errors", f"{ours} against {theirs}", ours.exceeds(theirs)))
    return found


def report(rows: Rows) -> str:
    """The table and the verdict, Markdown."""
    cells = [
        [name, *(str(Mean.of([row[column] for row in seeds])) for column in _COLUMNS)] for name, seeds in rows.items()
    ]
    return "\n\n".join([table(["", *_COLUMNS], cells), "\n".join(f"- {claim}" for claim in claims(rows))]) + "\n"
