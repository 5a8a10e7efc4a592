"""The arguments given to an authors' constructor or command line, read with their defaults and checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from modkit.errors import suggest

__all__ = ["Arguments"]

_LARGEST = sys.float_info.max


class Arguments:
    """Named values with defaults; each method that reads one raises a `ValueError` if the value is of another kind.

    Args:
        owner: What takes them, for error messages.
        given: The values given.
        defaults: The default of every known argument.

    Raises:
        ValueError: If an argument is unknown.

    Examples:
        >>> given = Arguments("SongUNet", {"num_blocks": 2}, {"num_blocks": 4, "encoder_type": "standard"})
        >>> given.integer("num_blocks"), given.only("encoder_type", ["standard"])
        (2, 'standard')
    """

    def __init__(self, owner: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        for name in given:
            if name not in defaults:
                hint = suggest(str(name), defaults, "; ")
                raise ValueError(f"{owner} has no argument {name!r}{hint}")
        self.owner = owner
        self.values = {**defaults, **given}

    def integer(self, name: str, *, low: int = 1) -> int:
        """Returns a whole number of at least `low`."""
        value = self.values[name]
        if not _is_whole(value) or value < low:
            raise self.error(name, f"a whole number of at least {low}")
        return int(value)

    def integers(self, name: str, *, empty: bool = False) -> list[int]:
        """Returns a list of whole numbers above 0, which may be `empty`."""
        value = self.values[name]
        if not isinstance(value, list | tuple) or not all(_is_whole(item) and item > 0 for item in value):
            raise self.error(name, "a list of whole numbers above 0")
        if not value and not empty:
            raise self.error(name, "at least one number")
        return [int(item) for item in value]

    def number(self, name: str, *, low: float = 0.0, finite: bool = True) -> float:
        """Returns a number of at least `low`, which may be infinite unless it must be `finite`."""
        value = self.values[name]
        fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= low
        if not fits or (value > _LARGEST and (finite or isinstance(value, int))):
            raise self.error(name, f"a number of at least {low:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """Returns true or false."""
        value = self.values[name]
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def only(self, name: str, values: Sequence[Any], *, why: str = "") -> Any:
        """Returns one of `values`; `why` says in the message what is wrong with others."""
        value = self.values[name]
        value = list(value) if isinstance(value, tuple) else value
        if not any(type(value) is type(one) and value == one for one in values):
            raise self.error(name, " or ".join(map(repr, values)) + (f" ({why})" if why else ""))
        return value

    def error(self, name: str, expected: str) -> ValueError:
        """Makes the error that names an argument, what was expected and what was received."""
        return ValueError(f"{self.owner}: {name} is expected to be {expected}, got {self.values[name]!r}")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
