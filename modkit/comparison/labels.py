"""Labels in figures: printable, short enough for their place, and still different from one another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

__all__ = ["make_printable", "shorten_labels"]

_LONGEST = 32


def make_printable(text: str, longest: int = _LONGEST) -> str:
    """Shortens a text and replaces characters that cannot be drawn or are not allowed in XML."""
    kept = _replace_unprintable(text)
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


def shorten_labels(labels: Sequence[str], longest: int = _LONGEST) -> list[str]:
    """Shortens labels to at most `longest` letters, so that those that differ still differ.

    A label loses its end; if others begin like it, its middle; if others end like it too, it is numbered.

    Examples:
        >>> shorten_labels(["a long name, apt", "a long name, bad", "short"], 10)
        ['a l…e, apt', 'a l…e, bad', 'short']
    """
    ends = [make_printable(label, longest) for label in labels]
    middles = [_drop_middle(_replace_unprintable(label), longest) for label in labels]
    made = [middle if ends.count(end) > 1 else end for end, middle in zip(ends, middles)]
    counts = Counter(made)
    numbers = Counter[str]()
    for place, label in enumerate(made):
        if counts[label] > 1:
            numbers[label] += 1
            mark = f" #{numbers[label]}"
            made[place] = make_printable(labels[place], longest - len(mark)) + mark
    return made


def _replace_unprintable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _drop_middle(text: str, longest: int) -> str:
    """Drops the middle, so that a third of what is kept stands before it."""
    if len(text) <= longest:
        return text
    before = (longest - 1) // 3
    return f"{text[:before]}…{text[len(text) - (longest - 1 - before) :]}"
