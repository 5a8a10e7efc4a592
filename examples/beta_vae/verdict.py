"""The verdict: whether rate and distortion follow β, and whether rivals of the VAE are more disentangled.

Pure functions of plain figures: nothing here trains or measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TypeAlias

from examples.studies.mean import Claim, Mean, table

__all__ = ["claims", "report"]

Rows: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]
"""By system, a row of figures a seed."""

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
            ours, base = (_mean(rows, one, score) for one in (name, "VAE"))
            text = f"{score} of {name} is above the VAE's by more than both errors"
            found.append(Claim(text, f"{ours} against {base}", ours.exceeds(base)))
    return found


def report(rows: Rows, betas: Mapping[str, float], rivals: Sequence[str]) -> str:
    """The tables and the verdict, Markdown."""
    parts = [_make_table(rows, columns) for columns in (_COLUMNS, _MORE)]
    verdict = "\n".join(f"- {claim}" for claim in claims(rows, betas, rivals))
    return "\n\n".join([*filter(None, parts), verdict]) + "\n"


def _follow(rows: Rows, names: Sequence[str], figure: str, text: str, *, falls: bool) -> Claim:
    means = [_mean(rows, name, figure) for name in names]
    steps = [a.value > b.value if falls else a.value < b.value for a, b in pairwise(means)]
    shown = ", ".join(f"{name}: {mean}" for name, mean in zip(names, means, strict=True))
    return Claim(text, shown, all(steps))


def _mean(rows: Rows, system: str, figure: str) -> Mean:
    return Mean.of([row[figure] for row in rows[system]])


def _make_table(rows: Rows, columns: Sequence[str]) -> str:
    """A row a system, with the columns that there are figures of; empty if there are none."""
    there = [name for name in columns if all(name in row for seeds in rows.values() for row in seeds)]
    if not there:
        return ""
    return table(["", *there], [[name, *(str(_mean(rows, name, one)) for one in there)] for name in rows])
