"""The verdict: whether training on corrupted inputs removes noise and fills in what is hidden, and the table.

    mean and its standard error over seeds: m, s = std / sqrt(n)
    lower:  m_other - m_ours > s_other + s_ours

Pure functions of plain figures: nothing here trains or measures.

References:
    Extracting and Composing Robust Features with Denoising Autoencoders (Vincent et al., 2008),
    https://www.cs.toronto.edu/~larocheh/publications/icml-2008-denoising-autoencoders.pdf
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from examples.studies.mean import Claim, Mean, join_report, table

__all__ = ["LEVELS", "Errors", "judge", "report"]

Errors: TypeAlias = dict[str, dict[str, float]]
"""Mean squared errors by what was read, then by what was made of it."""

LEVELS = (0.25, 0.5, 1.0)
"""Standard deviations of the noise, of pixels in [-1, 1]."""

_HIDDEN = "hidden half"
_COLUMNS = ("input", "mean digit", "plain", "trained")


def judge(errors: Sequence[Errors]) -> tuple[Claim, Claim]:
    """Judges denoising at every level, and in-painting.

    Args:
        errors: Those of each seed.
    """
    noisy = [f"noise {level:g}" for level in LEVELS]
    return (
        _compare(
            "At each level, the denoised error is below the noisy input's and the plain autoencoder's", errors, noisy
        ),
        _compare(
            "Of a hidden half, the error is below the mean digit's and the plain autoencoder's", errors, [_HIDDEN]
        ),
    )


def report(errors: Sequence[Errors]) -> str:
    """The table and the verdict, Markdown.

    Args:
        errors: Those of each seed.
    """
    rows = [
        (read, *(str(_average(errors, read, made)) if made in errors[0][read] else "" for made in _COLUMNS))
        for read in errors[0]
    ]
    return join_report([table(["read", *_COLUMNS], rows)], judge(errors))


def _compare(text: str, errors: Sequence[Errors], inputs: Sequence[str]) -> Claim:
    figures: list[str] = []
    holds: list[bool | None] = []
    for read in inputs:
        ours = _average(errors, read, "trained")
        others = {made: _average(errors, read, made) for made in errors[0][read] if made != "trained"}
        figures.append(f"{read}: {ours} against {' and '.join(map(str, others.values()))}")
        holds += [other.exceeds(ours) for other in others.values()]
    return Claim(text, "; ".join(figures), None if None in holds else all(holds))


def _average(errors: Sequence[Errors], read: str, made: str) -> Mean:
    return Mean.of([one[read][made] for one in errors])
