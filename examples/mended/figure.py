"""A figure: a defect, and a measurement that shows it in one tree of the repository and its absence in another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from modkit.errors import SpecError

__all__ = ["Figure", "Single", "Value", "shorten", "take"]

Single: TypeAlias = float | str
Value: TypeAlias = Single | list[Single]
"""What a measurement gives: a number, words, or several of these."""

_LONGEST = 80  # characters of an error in a cell


@dataclass(frozen=True)
class Figure:
    """A figure of a defect.

    Args:
        name: What `--only` takes.
        defect: What was wrong.
        text: What is measured.
        expected: Its unit, and where it belongs.
        measure: Measures it in the tree that is imported, in seconds; it uses what both trees have, and its docstring
            names what only one has.
    """

    name: str
    defect: str
    text: str
    expected: str
    measure: Callable[[], Value]


def take(figure: Figure) -> Value:
    """Measures a figure; what the tree refuses is the figure itself, in short.

    Examples:
        >>> def refuse():
        ...     raise ValueError("got the unknown parameter `norm`")
        >>> take(Figure("norm", "", "", "", refuse))
        'refused: got the unknown parameter `norm`'
    """
    try:
        return figure.measure()
    except ValueError as error:
        reason = str(error.problems[0].message) if isinstance(error, SpecError) else str(error)
        return f"refused: {shorten(reason)}"
    except Exception as error:
        return f"failed: {shorten(f'{type(error).__name__}: {error}')}"


def shorten(text: str) -> str:
    """The first words of a message, on one line."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rpartition(' ')[0]} …"
