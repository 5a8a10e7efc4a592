"""Some of many cases: each trait that any of them has, at least one of these has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

__all__ = ["cover"]

_Case = TypeVar("_Case")


def cover(cases: Sequence[_Case], list_traits: Callable[[_Case], set[object]]) -> list[_Case]:
    """Returns cases that have every trait among them, chosen by a seed, in their order."""
    kept, seen = set(), set()
    for number in Random(0).sample(range(len(cases)), len(cases)):
        if not (traits := list_traits(cases[number])) <= seen:
            kept.add(number)
            seen |= traits
    return [case for number, case in enumerate(cases) if number in kept]
