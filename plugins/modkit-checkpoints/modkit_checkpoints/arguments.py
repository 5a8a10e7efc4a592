"""The arguments that an authors' constructor or command line was given, read with their defaults and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

__all__ = ["Arguments"]


class Arguments:
    """Named values; what was not given is at its default.

        given = Arguments("SongUNet", config, {"num_blocks": 4, "encoder_type": "standard"})
        blocks = given.integer("num_blocks")
        given.only("encoder_type", ["standard"])

    Args:
        owner: Whose they are, in errors.
        given: The values given.
        defaults: The default of every argument that is known.

    Raises:
        ValueError: If an argument is not known.
    """

    def __init__(self, owner: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        for name in given:
            if name not in defaults:
                near = get_close_matches(str(name), list(defaults), 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"{owner} has no argument {name!r}{hint}")
        self.owner = owner
        self.values = {**defaults, **given}

    def integer(self, name: str, *, low: int = 1) -> int:
        """A whole number.

        Raises:
            ValueError: If it is none, or below `low`.
        """
        value = self.values[name]
        if not _whole(value) or value < low:
            raise self.error(name, f"a whole number of at least {low}")
        return int(value)

    def integers(self, name: str, *, empty: bool = False) -> list[int]:
        """A list of whole numbers above 0.

        Raises:
            ValueError: If it is none, or empty where it may not be.
        """
        value = self.values[name]
        if not isinstance(value, list | tuple) or not all(_whole(item) and item > 0 for item in value):
            raise self.error(name, "a list of whole numbers above 0")
        if not value and not empty:
            raise self.error(name, "at least one number")
        return [int(item) for item in value]

    def number(self, name: str, *, low: float = 0.0, finite: bool = True) -> float:
        """A number.

        Raises:
            ValueError: If it is none, below `low`, or infinite where it may not be.
        """
        value = self.values[name]
        fits = isinstance(value, int | float) and not isinstance(value, bool) and value >= low
        if not fits or (finite and math.isinf(value)):
            raise self.error(name, f"a number of at least {low:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """True or false.

        Raises:
            ValueError: If it is neither.
        """
        value = self.values[name]
        if not isinstance(value, bool):
            raise self.error(name, "true or false")
        return value

    def only(self, name: str, values: Sequence[Any], *, why: str = "") -> Any:
        """One of `values`; `why` says what is amiss with others.

        Raises:
            ValueError: If it is none of them.
        """
        value = self.values[name]
        value = list(value) if isinstance(value, tuple) else value
        if not any(type(value) is type(one) and value == one for one in values):
            raise self.error(name, " or ".join(map(repr, values)) + (f" ({why})" if why else ""))
        return value

    def error(self, name: str, expected: str) -> ValueError:
        """What is wrong with an argument."""
        return ValueError(f"{self.owner}: {name} is expected to be {expected}, got {self.values[name]!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
