"""Passes: values that can be iterated over several times, such as the batches from which a Model is prepared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from modkit.types import Batch

__all__ = ["Passes", "select_fields"]

T = TypeVar("T")


class Passes(Iterable[T]):
    """Values that can be iterated over several times, in passes that a function starts.

    Args:
        start: Starts a pass.
        fields: Of batches, passes over their fields alone, which are faster; None if there are none.
    """

    def __init__(self, start: Callable[[], Iterator[T]], fields: Iterable[T] | None = None) -> None:
        self._start, self.fields = start, fields

    def __iter__(self) -> Iterator[T]:
        return self._start()


def select_fields(batches: Iterable[Batch]) -> Iterable[Batch]:
    """Returns passes over the fields of batches, whose samples are left out if that is faster.

    Examples:
        >>> import torch
        >>> whole = [Batch(torch.zeros(1, 2), {"labels": torch.zeros(1)})]
        >>> alone = [Batch(torch.zeros(1, 0), {"labels": torch.zeros(1)})]
        >>> select_fields(Passes(lambda: iter(whole), alone)) is alone, select_fields(whole) is whole
        (True, True)
    """
    return batches.fields if isinstance(batches, Passes) and batches.fields is not None else batches
