"""Objectives of a search: scores of a report, each with the direction in which it is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from modkit.comparison.ranking import Better
from modkit.comparison.titles import parse_title
from modkit.evaluation.report import Report

__all__ = ["Value", "read_objectives"]

_SPEED = "samples/s"
_SECONDS = "seconds"


class Value(NamedTuple):
    """The value of an objective, and the direction in which it is better."""

    value: float
    better: Better


def read_objectives(report: Report, names: Sequence[str]) -> dict[str, Value]:
    """Reads the objectives from a report; those that it lacks are left out.

    Args:
        report: The report.
        names: The titles of scores, or their beginnings without what stands in parentheses, in any case: `fd` is
            `FD (classifier)`. `seconds` is the time of one sample, `1 / (samples/s)`.

    Raises:
        ValueError: If neither direction of a score is better.

    Examples:
        >>> from modkit.types import Score
        >>> scores = {"FD (pixels)": Score(2.5, better="lower"), "samples/s": Score(4.0, better="higher")}
        >>> read_objectives(Report(scores, {}, seed=0), ["fd", "seconds"])
        {'fd': Value(value=2.5, better='lower'), 'seconds': Value(value=0.25, better='lower')}
    """
    found = {}
    for name in names:
        title = _find_title(report, name)
        if title is None:
            continue
        score = report.scores[title]
        if name.lower() == _SECONDS:
            found[name] = Value(1 / score.value, "lower")
        elif score.better is None:
            raise ValueError(f"search expects objectives with a better direction, got {name}: neither is for {title}")
        else:
            found[name] = Value(float(score.value), score.better)
    return found


def _find_title(report: Report, name: str) -> str | None:
    """Finds the title of the score that an objective names."""
    wanted = _SPEED if name.lower() == _SECONDS else name.lower()
    titles = [title for title in report.scores if wanted in (title.lower(), _shorten(title))]
    return next(iter(titles), None)


def _shorten(title: str) -> str:
    parsed = parse_title(title)
    return "" if parsed.of else parsed.score.partition(" (")[0].lower()
