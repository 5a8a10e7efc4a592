"""Turns: work that several processes share, each piece of which is done in one of them.

A study that is not a comparison of run by run trains and measures by these, so that its processes share it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from examples.studies.folder import keep, train_run
from modkit import Spec
from modkit.runs.hold import Hold

__all__ = ["keep_in_turns", "take_turns", "train_in_turns"]


def take_turns(folder: Path, names: Iterable[str], do: Callable[[str], object]) -> None:
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


def train_in_turns(out: Path, specs: Mapping[str, Spec], say: Callable[[str], None]) -> None:
    """Trains the runs that are not finished, all of them when it returns.

    Args:
        out: Where everything is kept.
        specs: The spec of each run, by its name.
        say: Prints a line of progress.
    """

    def train(run: str) -> None:
        say(f"training {run}")
        if (spent := train_run(specs[run], out / "runs" / run)) is not None:
            say(f"trained {run}: {spent:.0f} s of CPU time")

    take_turns(out / "turns" / "runs", specs, train)


def keep_in_turns(out: Path, compute: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """The content of JSON files, computed and written where there is no such file, see `keep`.

    Args:
        out: Where everything is kept.
        compute: What computes each, by its path in `out` without `.json`.
    """
    paths = {name: out / f"{name}.json" for name in compute}
    take_turns(
        out / "turns",
        (name for name in compute if not paths[name].exists()),
        lambda name: keep(paths[name], compute[name]),
    )
    return {name: keep(paths[name], compute[name]) for name in compute}


class _Busy(Exception):
    """Another process is at it."""


def _pass_on() -> None:
    raise _Busy


def _wait() -> None:
    pass
