"""The files of a run that travel to the Hub and back, and how their contents are checked.

They are those that `modkit export` writes: safetensors, text and pictures. Nothing in them can run.
"""

from __future__ import annotations

import fnmatch
import logging
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from modkit.runs.run import Run

__all__ = ["OPTIONAL", "REQUIRED", "TRAVELLING", "check_run", "copy_run", "list_left", "warn_left"]

REQUIRED = ("modkit.lock", "spec.yaml", "state.json", "manifest.json", "model.safetensors")
"""What each run has that `modkit export` wrote."""

OPTIONAL = ("evaluation.json", "evaluations/*.json", "samples/*.png")
"""Patterns of the names of its scores and pictures."""

TRAVELLING = (*REQUIRED, "README.md", "LICENSE", *OPTIONAL)
"""Patterns of the names of all files that are pushed and pulled."""

_logger = logging.getLogger(__name__)
_UNSAID = (".gitattributes", ".gitignore", ".cache/*")


def list_left(names: Iterable[str]) -> list[str]:
    """Lists the files that do not travel, in order of their names, without files of git and caches."""
    return sorted(name for name in names if not _matches(name, (*TRAVELLING, *_UNSAID)))


def warn_left(where: str, left: Sequence[str]) -> None:
    """Warns of files that were left behind, if any were."""
    if left:
        _logger.warning("%s: only safetensors, text and pictures travel; left behind: %s", where, ", ".join(left))


def check_run(folder: Path) -> Run:
    """Checks that a folder holds a run whose files have the contents that `modkit export` wrote; returns the run.

    Raises:
        ValueError: If it does not.
    """
    run = Run.open(folder)
    if not run.exported:
        raise ValueError(f"{folder} holds a run that was not written by `modkit export`")
    run.read_weights()
    return run


def copy_run(folder: Path, out: Path) -> list[str]:
    """Copies the files that travel to a new folder; returns the names of the others."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    for name in names:
        if _matches(name, TRAVELLING):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, out / name)
    return list_left(names)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
