"""Passes: values that can be iterated over several times, such as the batches from which a Model is prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["Passes"]

T = TypeVar("T")


class Passes(Iterable[T]):
    """Values that can be iterated over several times, in passes that a function starts."""

    def __init__(self, start: Callable[[], Iterator[T]]) -> None:
        self._start = start

    def __iter__(self) -> Iterator[T]:
        return self._start()
