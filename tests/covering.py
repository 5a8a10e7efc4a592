"""Some of many cases, drawn by the commit under test: other commits draw others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

from tests.commit import read_commit

__all__ = ["cover", "draw", "shuffle"]

_Case = TypeVar("_Case")


def shuffle(cases: Sequence[_Case]) -> list[_Case]:
    """Returns the cases in an order of the commit's."""
    return Random(read_commit()).sample(cases, len(cases))


def draw(cases: Sequence[_Case], num: int) -> list[_Case]:
    """Returns `num` of the cases, or all if there are fewer, in their order."""
    return [cases[number] for number in sorted(shuffle(range(len(cases)))[:num])]


def cover(cases: Sequence[_Case], list_traits: Callable[[_Case], set[object]]) -> list[_Case]:
    """Returns cases, in their order, that have every trait of all cases among them."""
    kept, seen = set(), set()
    for number in shuffle(range(len(cases))):
        if not (traits := list_traits(cases[number])) <= seen:
            kept.add(number)
            seen |= traits
    return [case for number, case in enumerate(cases) if number in kept]
