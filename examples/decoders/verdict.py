"""The verdict: whether a decoder that draws is better than one that averages, and the table.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from examples.studies.mean import Claim, Mean, Rows, average, join_report, tabulate

__all__ = ["MOST_LOST", "claims", "report"]

MOST_LOST = 2.0
"""Decibels of PSNR that a draw may lose against a mean."""

_COLUMNS = ("reconstruction FD", "PSNR", "FD", "precision", "recall", "weights", "steps")


def claims(rows: Rows) -> list[Claim]:
    """What the figures say of both decoders.

    Args:
        rows: Figures of each system by seed.
    """
    return [
        _compare(rows, "reconstruction FD", "Reconstructions are closer in FD, by more than both errors"),
        _hold(rows),
        _compare(rows, "FD", "Samples under a diffusion prior are no further in FD", strictly=False),
    ]


def report(rows: Rows) -> str:
    """The table and the verdict, Markdown."""
    return join_report([tabulate(rows, _COLUMNS)], claims(rows))


def _compare(rows: Rows, figure: str, text: str, *, strictly: bool = True) -> Claim:
    """Whether a distance is lower with diffusion or, if not `strictly`, at least not higher."""
    ours, theirs = (average(rows, name, figure) for name in ("diffusion", "mse"))
    lower = theirs.exceeds(ours)
    decides = strictly or ours.error is None
    return Claim(text, f"{ours} against {theirs}", lower if decides else lower is not False)


def _hold(rows: Rows) -> Claim:
    pairs = zip(rows["diffusion"], rows["mse"])
    lost = Mean.of([theirs["PSNR"] - ours["PSNR"] for ours, theirs in pairs])
    return Claim(f"PSNR is at most {MOST_LOST:g} dB lower", f"{lost} dB lower", lost.value <= MOST_LOST)
