"""Turns: work that several processes share, each piece of which is done in one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from modkit.runs.hold import Hold

__all__ = ["take_turns"]


class _Busy(Exception):
    """Another process is at it."""


def take_turns(folder: Path, names: Iterable[str], do: Callable[[str], None]) -> None:
    """Does all pieces; what other processes are at is left for the end, when they are waited for.

    Args:
        folder: Has a folder for each piece, which the process that is at it holds.
        names: Names of the pieces.
        do: Does a piece, or returns at once if it has been done.
    """
    left = []
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        try:
            with Hold(folder / name, _pass_on):
                do(name)
        except _Busy:
            left.append(name)
    for name in left:  # a process may have been killed over it
        with Hold(folder / name, _wait):
            do(name)


def _pass_on() -> None:
    raise _Busy


def _wait() -> None:
    pass
