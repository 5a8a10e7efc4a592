"""The layout of a run's directory: the names of its files, and how the directory is prepared for a run."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from modkit.runs.files import find_final_name, make_folders, refuse_link
from modkit.runs.hold import LOCK as HELD

__all__ = [
    "FIRST", "FROZEN", "LOCK", "METRICS", "SOURCES", "SPEC", "STATE", "STATUS", "TAGS", "TIMING", "check_vacant",
    "clear_temporary", "find_runs", "has_results", "is_taken", "make_directory", "read_step", "refuse_links", "remove",
    "vacate",
]  # fmt: skip

LOCK = "modkit.lock"
SPEC = "spec.yaml"
METRICS = "metrics.jsonl"
TIMING = "timing.jsonl"
STATUS = "status.json"
STATE = "state.json"
TAGS = "tags.json"
SOURCES = "parts"
"""The folder with copies of the files that registered parts of the user's own."""
FIRST = "step-00000000"
"""Name of the checkpoint that is written before the first step."""
FROZEN = "frozen-"
"""Begin of the names of files that checkpoints share."""

_RESULTS = ("checkpoints", "averages", "samples", "evaluations", "evaluation.json", METRICS, TIMING, STATUS, TAGS)
_OWN = (*_RESULTS, SOURCES)
_WRITTEN = re.compile(r"modkit\.lock|spec\.yaml|status\.json|tags\.json|[A-Za-z0-9][A-Za-z0-9._-]*\.png")


def find_runs(folder: Path) -> Iterator[Path]:
    """Finds the runs in a folder and below it, in order of their names, damaged ones and the folder itself included.

    Links and hidden folders are not entered.
    """
    for parent, folders, files in os.walk(folder):
        if LOCK in files or (SPEC in files and (METRICS in files or "checkpoints" in folders)):
            folders.clear()
            yield Path(parent)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def read_step(name: str) -> float:
    """Reads the step in the name of a checkpoint; infinity in any other name.

    Examples:
        >>> read_step("step-00000012"), read_step("step-old")
        (12, inf)
    """
    step = name.removeprefix("step-")
    return int(step) if step.isdecimal() else math.inf


def make_directory(path: Path) -> list[Path]:
    """Makes the directory of a run; returns it and its parents as far as they were missing, the outermost last.

    Raises:
        ValueError: If it is a file, or cannot be created.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"Run.create expects a directory, got the file {path}")
    try:
        return make_folders(path)
    except OSError as error:
        raise ValueError(f"Run.create cannot create the directory {path}: {error.strerror}") from error


def check_vacant(path: Path, overwrite: bool) -> None:
    """Checks that a directory is empty, or holds a run that can be replaced: one without results, or with `overwrite`.

    Raises:
        ValueError: If it is not.
    """
    found = sorted(entry.name for entry in path.iterdir() if entry.name != HELD and not _is_temporary(entry.name))
    if found and LOCK not in found:
        raise ValueError(f"Run.create expects an empty directory or a run, got {path} with {', '.join(found[:5])}")
    if STATE in found:
        raise ValueError(f"Run.create: {path} holds an exported run, which cannot be replaced")
    if not overwrite and is_taken(path):
        raise ValueError(
            f"Run.create: {path} already holds a run; use --resume (in Python resume=True) to continue it or "
            "--overwrite (overwrite=True) to replace it"
        )


def is_taken(path: Path) -> bool:
    """Whether a directory holds a run that is not replaced unasked: with results, or weights from elsewhere."""
    return has_results(path) or _is_imported(path)


def has_results(path: Path, begun: str = FIRST) -> bool:
    """Whether a run holds what training made: a row, a picture, a score, or a checkpoint later than its beginning.

    Args:
        path: The run's directory.
        begun: Name of the checkpoint that training began with.
    """
    return any(_holds(path / name, begun) for name in _RESULTS)


def remove(path: Path, made: Sequence[Path]) -> None:
    """Removes a run and the folders that were made for it; if there is anything else, a place for a new run is left.

    Args:
        path: The run's directory.
        made: The folders, innermost first; those that are not empty stay.
    """
    vacate(path)
    if {entry.name for entry in path.iterdir()} - {LOCK, HELD}:
        return
    for name in (LOCK, HELD):
        (path / name).unlink(missing_ok=True)
    with suppress(OSError):  # another process may use them
        for folder in made:
            folder.rmdir()


def vacate(path: Path) -> None:
    """Prepares a directory for a new run; if the process is killed meanwhile, this can be repeated."""
    clear_temporary(path)
    (path / SPEC).unlink(missing_ok=True)
    for name in _OWN:
        if (path / name).is_dir() and not (path / name).is_symlink():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)


def refuse_links(path: Path) -> None:
    """Refuses links in place of a run's files, folders and checkpoints: what is written would end elsewhere.

    Raises:
        ValueError: If there is one.
    """
    for name in (*_OWN, LOCK, SPEC, HELD):
        refuse_link(path / name)
    checkpoints = path / "checkpoints"
    for entry in sorted(checkpoints.iterdir()) if checkpoints.is_dir() else ():
        refuse_link(entry)


def clear_temporary(folder: Path) -> None:
    """Removes files that a killed process left incomplete."""
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        if _is_temporary(entry.name) and not entry.is_dir():
            entry.unlink()


def _is_imported(path: Path) -> bool:
    """Whether a run began with weights from elsewhere, which are of worth before any step."""
    try:
        lock = json.loads((path / LOCK).read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return False
    return isinstance(lock, dict) and "imported" in lock


def _holds(path: Path, begun: str) -> bool:
    if path.is_dir():
        names = {entry.name for entry in path.iterdir() if find_final_name(entry.name) is None} - {begun}
        return any(not name.startswith(FROZEN) for name in names)
    return path.is_file() and path.stat().st_size > 0


def _is_temporary(name: str) -> bool:
    """Whether a name is one of a file that a run has not completed."""
    final = find_final_name(name)
    return final is not None and _WRITTEN.fullmatch(final) is not None
