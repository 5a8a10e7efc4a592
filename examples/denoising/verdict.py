"""The verdict: whether training on corrupted inputs removes noise and fills in what is hidden, and the table.

Pure functions of plain figures: nothing here trains or measures.

References:
    Extracting and Composing Robust Features with Denoising Autoencoders (Vincent et al., 2008),
    https://www.cs.toronto.edu/~larocheh/publications/icml-2008-denoising-autoencoders.pdf
"""

from __future__ import annotations

from collections.abc import Sequence

from examples.studies.mean import Claim, Mean, Rows, average, join_report, judge_all, table

__all__ = ["HIDDEN", "LEVELS", "PLAIN", "TRAINED", "judge", "report"]

LEVELS = (0.25, 0.5, 1.0)
"""Standard deviations of the noise, of pixels in [-1, 1]."""

HIDDEN = "hidden half"
PLAIN = "plain"
TRAINED = {**{f"noise {level:g}": f"denoising-{level:g}" for level in LEVELS}, HIDDEN: "painting"}
"""By what is read, the system that was trained on it."""

_COLUMNS = ("input", "mean digit", PLAIN, "trained")


def judge(rows: Rows) -> tuple[Claim, Claim]:
    """Judges denoising at every level, and in-painting.

    Args:
        rows: Errors of each system by seed: of the plain one by what was read, of the others by what was made of it.
    """
    noisy = [f"noise {level:g}" for level in LEVELS]
    return (
        _compare(
            "At each level, the denoised error is below the noisy input's and the plain autoencoder's", rows, noisy
        ),
        _compare("Of a hidden half, the error is below the mean digit's and the plain autoencoder's", rows, [HIDDEN]),
    )


def report(rows: Rows) -> str:
    """The table and the verdict, Markdown.

    Args:
        rows: Those that `judge` takes.
    """
    found = {read: _average(rows, read) for read in ("clean", *TRAINED)}
    cells = [(read, *(str(row.get(made, "")) for made in _COLUMNS)) for read, row in found.items()]
    return join_report([table(["read", *_COLUMNS], cells)], judge(rows))


def _compare(text: str, rows: Rows, inputs: Sequence[str]) -> Claim:
    figures: list[str] = []
    holds: list[bool | None] = []
    for read in inputs:
        others = _average(rows, read)
        ours = others.pop("trained")
        figures.append(f"{read}: {ours} against {' and '.join(map(str, others.values()))}")
        holds += [other.exceeds(ours) for other in others.values()]
    return Claim(text, "; ".join(figures), judge_all(holds))


def _average(rows: Rows, read: str) -> dict[str, Mean]:
    """The errors of what was read, by what was made of it, in the order of the columns."""
    system = TRAINED.get(read)
    errors = {made: average(rows, system, made) for made in rows[system][0]} if system else {}
    errors[PLAIN] = average(rows, PLAIN, read)
    return {made: errors[made] for made in _COLUMNS if made in errors}
