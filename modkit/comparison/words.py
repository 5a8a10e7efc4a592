"""Words in the sentences of a comparison."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["join_words"]


def join_words(labels: Sequence[str]) -> str:
    """Joins words for a sentence: `a, b and c`, or `none`."""
    return " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1]))) if labels else "none"
