"""What seeds say together: a mean with its standard error, and a claim that such figures confirm or contradict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Claim", "Mean", "table"]


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and its standard error, None of a single one.

    Args:
        value: The mean.
        error: Its standard error.
    """

    value: float
    error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """The mean of one value or more."""
        error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
        return cls(statistics.fmean(values), error)

    def times(self, factor: float) -> Mean:
        """The same in other units."""
        return Mean(factor * self.value, None if self.error is None else factor * self.error)

    def at_most(self, limit: float) -> Mean:
        """The same, but never above `limit`."""
        return Mean(min(self.value, limit), self.error)

    def exceeds(self, other: Mean) -> bool | None:
        """Whether it is above another by more than both standard errors together; None where one seed cannot tell."""
        if self.error is None or other.error is None:
            return None
        return self.value - other.value > self.error + other.error

    def __str__(self) -> str:
        value = f"{self.value:,.0f}" if abs(self.value) >= 1000 else f"{self.value:.3g}"
        return value if self.error is None else f"{value} ± {self.error:.2g}"


@dataclass(frozen=True)
class Claim:
    """A claim and what became of it.

    Args:
        text: The claim.
        figures: The figures it is judged by.
        holds: Whether it is confirmed; None where one seed cannot tell.
    """

    text: str
    figures: str
    holds: bool | None

    def __str__(self) -> str:
        verdict = {True: "confirmed", False: "contradicted", None: "undecided by a single seed"}[self.holds]
        return f"{self.text}: **{verdict}** ({self.figures})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table, Markdown.

    Args:
        head: Titles of the columns.
        rows: Cells of each row.
        words: Number of leading columns that hold words; those of figures are aligned to the right.
    """
    under = ["---"] * words + ["---:"] * (len(head) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, under, *rows))
