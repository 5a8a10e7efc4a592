"""What seeds say together: a mean with its standard error, and a claim that such figures confirm or contradict.

One mean is above another if it is by more than both standard errors together, below if the reverse holds, and otherwise
the seeds do not tell them apart.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["VERDICTS", "Claim", "Mean", "Rows", "Verdict", "average", "join_report", "judge_all", "table", "tabulate"]

Rows: TypeAlias = Mapping[str, Sequence[Mapping[str, float]]]
"""By system, a row of figures a seed."""

Verdict: TypeAlias = Literal["confirmed", "contradicted", "undecided"]
VERDICTS: dict[bool | None, Verdict] = {True: "confirmed", False: "contradicted", None: "undecided"}
"""By whether a claim holds."""


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
        """Whether it is above another; None if the seeds do not tell them apart, as a single one never does."""
        if self.error is None or other.error is None:
            return None
        apart = self.value - other.value
        return apart > 0 if abs(apart) > self.error + other.error else None

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
        holds: Whether it is confirmed or contradicted; None where the seeds decide neither.
    """

    text: str
    figures: str
    holds: bool | None

    @property
    def verdict(self) -> Verdict:
        """The verdict in a word."""
        return VERDICTS[self.holds]

    def __str__(self) -> str:
        return f"{self.text}: **{self.verdict}** ({self.figures})"


def judge_all(parts: Iterable[bool | None]) -> bool | None:
    """Whether a claim of several parts holds: contradicted if one part is, confirmed if all are, else undecided."""
    found = set(parts)
    return False if False in found else None if None in found else True


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
