"""A sweep's directory: what was asked, and which process holds it.

    sweep.json          the trials, the frozen spec of each run, the cap on steps, how runs are evaluated
    specs/NAME.yaml     the same specs, for the processes that train
    runs/NAME/          the runs with their reports, see `modkit.runs.run`

Nothing here says what is done: the runs and their reports do. Every file appears whole or not at all, `sweep.json`
before all others.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modkit.building.difference import compare_pair
from modkit.progress import Progress
from modkit.runs.files import replace_file
from modkit.specs.spec import Spec

__all__ = ["FORMAT", "hold", "record"]

FORMAT = 2
"""Of `sweep.json`; directories of format 1 also held a record of progress."""

_SWEEP = "sweep.json"
_LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9]+")
_LISTED = 5  # differences in an error


@contextmanager
def hold(path: Path, progress: Progress) -> Iterator[int]:
    """Makes a sweep's directory and holds it; yields the descriptor of a lock.

    Processes that inherit the descriptor hold the directory, too: where a sweep was killed but its training still
    runs, the next sweep waits for that.

    Args:
        path: The directory.
        progress: Shows that there is something to wait for.

    Raises:
        ValueError: If it is a file, or holds anything but a sweep.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"a sweep expects a directory, got the file {path}")
    path.mkdir(parents=True, exist_ok=True)
    other = sorted(entry.name for entry in path.iterdir() if not _TEMPORARY.fullmatch(entry.name))
    if _SWEEP not in other and other not in ([], [_LOCK]):
        listed = ", ".join(other[:_LISTED])
        raise ValueError(f"a sweep expects an empty directory or a sweep, got {path} with {listed}")
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"waiting for a process that another sweep has started in {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def record(path: Path, asked: Mapping[str, Any]) -> None:
    """Writes what is asked of a sweep into the directory that it holds.

    Args:
        path: The directory.
        asked: `format`, `steps`, `evaluation`, `runs` (specs by name) and `trials`, as plain data.

    Raises:
        ValueError: If the directory holds a sweep with another spec or cap, with trials that this one lacks, or of
            another version of modkit.
    """
    if (path / _SWEEP).exists():
        _check_same(path, asked)
    _write(path / _SWEEP, json.dumps(asked, indent=1))  # before anything else: it marks the directory as a sweep
    for folder in (path, path / "specs", *path.glob("runs/*"), *path.glob("runs/*/evaluations")):
        folder.mkdir(exist_ok=True)
        for entry in [found for found in folder.iterdir() if _TEMPORARY.fullmatch(found.name)]:
            entry.unlink()  # of a process that was killed: no other is at work
    for name, text in asked["runs"].items():
        _write(path / "specs" / f"{name}.yaml", text)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_bytes() != text.encode():
        replace_file(path, text.encode())


def _check_same(path: Path, asked: Mapping[str, Any]) -> None:
    file = path / _SWEEP
    try:
        before = json.loads(file.read_bytes())
        version = before["format"]
        if version == FORMAT:
            differences = list(dict.fromkeys(_differences(before, asked)))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error!r}") from error
    if version != FORMAT:
        raise ValueError(
            f"{file} has format {version}, expected {FORMAT}: another version of modkit started this sweep and has to "
            "finish it; choose another directory by --out"
        )
    if differences:
        raise ValueError(f"{path} holds another sweep: {', '.join(differences)}; choose another directory by --out")


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What keeps a sweep from continuing one that was asked before; more trials do not."""
    if before["steps"] != now["steps"]:
        yield f"steps were {before['steps']}, are {now['steps']}"
    gone = [trial["label"] for trial in before["trials"] if trial not in now["trials"]]
    if gone:
        more = f" and {len(gone) - _LISTED} more" if len(gone) > _LISTED else ""
        yield f"these axes do not give its {'; '.join(gone[:_LISTED])}{more}"
    for name, text in before["runs"].items():
        if now["runs"].get(name, text) != text:
            found = compare_pair(Spec.from_yaml(text).tree, Spec.from_yaml(now["runs"][name]).tree)
            listed = [f"{one.path} was {one.a}, is {one.b}" for one in found[:_LISTED]]
            yield from listed or [f"{name} had another spec"]
            if len(found) > _LISTED:
                yield f"and {len(found) - _LISTED} more"
