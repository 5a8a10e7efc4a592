"""The verdict: whether rate and distortion follow β, and whether rivals of the VAE are more disentangled.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from examples.studies.mean import Claim, Rows, average, join_report, tabulate

__all__ = ["claims", "report"]

_SCORES = ("MIG", "FactorVAE score")
_COLUMNS = (
    *("rate", "distortion", "held-out rate", "held-out distortion", "aggregate KL", "active units", "PSNR"),
    *_SCORES,
)
_MORE = ("β-VAE score", "DCI disentanglement", "DCI completeness", "DCI informativeness")


def claims(rows: Rows, betas: Mapping[str, float], rivals: Sequence[str]) -> list[Claim]:
    """What the figures say of the claims.

    Args:
        rows: Figures of each system by seed.
        betas: Systems that differ in β alone, in ascending order.
        rivals: Systems that should have higher scores than `VAE`.

    Raises:
        ValueError: If a system has no row.
    """
    if missing := [name for name in (*betas, *rivals) if not rows.get(name)]:
        raise ValueError(f"claims expects rows of every system, got none of {', '.join(missing)}")
    names = list(betas)
    found = [
        _follow(rows, names, "rate", "The rate falls as β rises", falls=True),
        _follow(rows, names, "distortion", "The distortion rises with β", falls=False),
    ]
    for name in rivals:
        for score in _SCORES:
            ours, base = (average(rows, one, score) for one in (name, "VAE"))
            text = f"{score} of {name} is above the VAE's by more than both errors"
            found.append(Claim(text, f"{ours} against {base}", ours.exceeds(base)))
    return found


def report(rows: Rows, betas: Mapping[str, float], rivals: Sequence[str]) -> str:
    """The tables and the verdict, Markdown."""
    return join_report([tabulate(rows, columns) for columns in (_COLUMNS, _MORE)], claims(rows, betas, rivals))


def _follow(rows: Rows, names: Sequence[str], figure: str, text: str, *, falls: bool) -> Claim:
    means = [average(rows, name, figure) for name in names]
    steps = [a.value > b.value if falls else a.value < b.value for a, b in pairwise(means)]
    shown = ", ".join(f"{name}: {mean}" for name, mean in zip(names, means, strict=True))
    return Claim(text, shown, all(steps))
