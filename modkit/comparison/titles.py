"""Titles of scores, taken apart: `FD (pixels), class 3` is FD, by the features pixels, of class 3."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Title", "taken_apart"]

_TITLE = re.compile(r"(?P<score>[^(,]+?)(?: \((?P<features>.+?)\))?(?:, (?P<of>.+))?", re.DOTALL)
_INCEPTION = ("FID", "FID∞", "KID")
_UNITS = ("s", "MiB", "nats", "bits", "bits/dim", "dB")


class Title(NamedTuple):
    """What a score's title says.

    Args:
        score: The score's name, with its unit.
        features: The features that it is measured by, or nothing.
        of: Of what part of the samples it is, or nothing.
    """

    score: str
    features: str = ""
    of: str = ""

    @property
    def short(self) -> str:
        """The title without the features."""
        return f"{self.score}, {self.of}" if self.of else self.score


def taken_apart(title: str) -> Title:
    """A score's title, taken apart."""
    found = _TITLE.fullmatch(title)
    if found is None:
        return Title(title)
    score, features, of = found["score"], found["features"] or "", found["of"] or ""
    if features in _UNITS:
        return Title(f"{score} ({features})", "", of)
    return Title(score, "inception" if not features and score in _INCEPTION else features, of)
