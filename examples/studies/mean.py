"""What seeds say together: a mean with its standard error, and a claim that such figures confirm or contradict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Claim", "Mean", "Rows", "average", "join_report", "table", "tabulate"]

Rows: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]
"""By system, a row of figures a seed."""


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
        value = f"{self.value:,.0f}" if abs(self.value) >= 1000 else f"{self.value:.{self._count_digits()}g}"
        return value if self.error is None else f"{value} ± {self.error:.2g}"

    def _count_digits(self) -> int:
        """Three digits of the value, or as many as it has down to the second of its error."""
        if not self.error or not self.value or not math.isfinite(self.value):
            return 3
        first, last = (math.floor(math.log10(abs(one))) for one in (self.value, self.error))
        return max(3, first - last + 2)


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


def average(rows: Rows, system: str, figure: str) -> Mean:
    """The mean of a system's figure."""
    return Mean.of([row[figure] for row in rows[system]])


def tabulate(rows: Rows, columns: Sequence[str], titles: Mapping[str, str] = {}) -> str:
    """A table of means, a row a system, Markdown; empty if there are no such figures.

    Args:
        rows: The figures; one that a system lacks is left out.
        columns: Names of the figures; those that every system lacks are left out.
        titles: Titles of columns, where they are not the figures' names.
    """
    has = {name: [one for one in columns if all(one in row for row in seeds)] for name, seeds in rows.items()}
    there = [one for one in columns if any(one in found for found in has.values())]
    cells = [[name, *(str(average(rows, name, one)) if one in has[name] else "–" for one in there)] for name in rows]
    return table(["", *(titles.get(one, one) for one in there)], cells) if there else ""


def join_report(tables: Iterable[str], claims: Iterable[Claim]) -> str:
    """A report of tables and verdict, Markdown."""
    return "\n\n".join([*filter(None, tables), "\n".join(f"- {claim}" for claim in claims)]) + "\n"
