"""Titles of scores in their parts: `FD (pixels), class 3` is FD, measured by the features `pixels`, of class 3."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Title", "parse_title"]

_TITLE = re.compile(r"(?P<score>[^(,]+?)(?: \((?P<features>.+?)\))?(?:, (?P<of>.+))?", re.DOTALL)
_INCEPTION = ("FID", "FID∞", "KID")
# what stands in parentheses and is no label of features: units, and how a likelihood was measured
_NOTES = re.compile(r"s|MiB|nats|bits|bits/dim|dB|log-likelihood|num=\d+")


class Title(NamedTuple):
    """The parts of a score's title."""

    score: str  # the score's name with its unit, or how else it was measured
    features: str = ""  # the features that it is measured by; empty if there are none
    of: str = ""  # the part of the samples that it is measured on; empty if it is all of them

    @property
    def short(self) -> str:
        """The title without the features."""
        return f"{self.score}, {self.of}" if self.of else self.score


def parse_title(title: str) -> Title:
    """Parses the title of a score.

    Examples:
        >>> parse_title("FD (pixels), class 3")
        Title(score='FD', features='pixels', of='class 3')
        >>> parse_title("KID").features
        'inception'
        >>> parse_title("bits/dim (log-likelihood)").features
        ''
    """
    found = _TITLE.fullmatch(title)
    if found is None:
        return Title(title)
    score, features, of = found["score"], found["features"] or "", found["of"] or ""
    if _NOTES.fullmatch(features):
        return Title(f"{score} ({features})", "", of)
    return Title(score, "inception" if not features and score in _INCEPTION else features, of)
