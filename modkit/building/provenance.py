"""Provenance: a run's lock beside what is installed now, and what mends the difference.

    a part is missing                           the `pip install` that brings it
    its version or source differs               one warning, or with `locked` a refusal
    its parameters or weights do not fit        the version to install, or that its author should declare `migrate`

All of it is said before anything is written.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from modkit.building.migration import due, known, prefixes
from modkit.errors import SpecError
from modkit.parts.registry import Entry
from modkit.runs.lock import find_drift, read_rows, suggest_install
from modkit.runs.run import Run

__all__ = ["explained", "missing", "remedies", "verify"]

_logger = logging.getLogger(__name__)


def verify(run: Run, *, locked: bool = False) -> None:
    """Warns once of all parts of a run that are not those that it was made with; with `locked` refuses.

    `locked` refuses another version of torch, too, and parts that are missing.

    Raises:
        ValueError: If `locked` and something differs; or the run's lock is none.
    """
    try:
        entries = [entry for row in read_rows(run.lock) if (entry := _loadable(row))]
    except ValueError as error:
        raise ValueError(f"{run.path / 'modkit.lock'}: {error}") from error
    differences = find_drift(run.lock, entries)
    if locked:
        if run.lock.get("torch") != str(torch.__version__):
            differences.append(f"torch was {run.lock.get('torch')}, now {torch.__version__}")
        differences += missing(run)
        if differences:
            raise ValueError(f"{run.path} is locked to what it was made with:\n{_listed(differences)}")
    if differences:
        _logger.warning("%s was made with other parts than those that are here:\n%s", run.path, _listed(differences))


def missing(run: Run, at: str = "") -> list[str]:
    """The parts of a run, at a path of its spec or below, that are not here, each with what brings it."""
    return [
        suggest_install(row) for row in _absent(run) if not at or any(_inside(path, at) for path in row.get("at", ()))
    ]


@contextmanager
def explained(run: Run) -> Iterator[None]:
    """Says, where a run's spec cannot be built here, which part is missing or has changed, and what mends it.

    Raises:
        ValueError: In the place of a `SpecError` for which there is such a reason.
    """
    try:
        yield
    except SpecError as error:
        text, paths = str(error), [problem.path for problem in error.problems]
        wanted = [row for row in _absent(run) if f"no {row['kind']} is called {row['name']!r}" in text]
        if absent := [suggest_install(row) for row in wanted]:
            raise ValueError(f"{run.path} needs parts that are not here:\n{_listed(absent)}") from error
        if reasons := remedies(run, paths):
            raise ValueError(
                f"{run.path} does not fit the parts that are here:\n{_listed([*map(str, error.problems), *reasons])}"
            ) from error
        raise


def remedies(run: Run, paths: Iterable[str] = (), keys: Iterable[str] = ()) -> list[str]:
    """What to do about the parts of a run that are others than it was made with, and in which something does not fit.

    Args:
        run: The run.
        paths: Places in its spec at which something does not fit.
        keys: Keys of its model's state dict that do not.
    """
    paths, keys = list(paths), dict.fromkeys(keys)

    def meant(at: str) -> bool:
        return any(_inside(path, at) for path in paths) or bool(prefixes(at, keys))

    reasons = [f"{migration} made what does not fit" for migration in due(run) if meant(migration.path)]
    for row in read_rows(run.lock):
        entry = _loadable(row)
        migrated = entry is not None and entry.part.migrate and "at" in row
        if entry and not migrated and ("at" not in row or any(map(meant, row["at"]))) and find_drift(run.lock, [entry]):
            reasons.append(_remedy(row, entry))
    return reasons


def _absent(run: Run) -> list[Mapping[str, Any]]:
    return [row for row in read_rows(run.lock) if known(row) is None]


def _remedy(row: Mapping[str, Any], entry: Entry) -> str:
    part = f"{row['kind']} {row['name']}"
    if (row["distribution"], row["version"]) == (entry.distribution, entry.version):
        return f"{part} has changed since, under one version: give it another and declare `migrate`, or change it back"
    old = shlex.quote(f"{row['distribution']}=={row['version']}")
    told = f"{part} came with {row['distribution']} {row['version']}, here is {entry.version}"
    if entry.part.migrate:
        return f"{told}, and the run's lock is too old to migrate by: pip install {old}"
    asked = f"or ask the author of {entry.distribution} for one"
    return f"{told}, which declares no `migrate` for it: pip install {old}, {asked}"


def _loadable(row: Mapping[str, Any]) -> Entry | None:
    """The part that is here of a row, if it can be imported: what cannot is blamed where it is used."""
    if entry := known(row):
        try:
            entry.part.load()
        except Exception:
            return None
    return entry


def _inside(path: str, around: str) -> bool:
    return path == around or path.startswith((f"{around}.", f"{around}["))


def _listed(sentences: Iterable[str]) -> str:
    return "\n".join(f"  {sentence}" for sentence in dict.fromkeys(sentences))
