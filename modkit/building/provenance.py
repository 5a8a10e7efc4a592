"""Provenance: compares a run's lock with what is installed now, and says how to resolve the differences.

    a part is missing                           the `pip install` command that provides it
    its version or source differs               one warning; an error with `locked`
    its parameters or weights do not fit        the version to install, or a request to its author for `migrate`

All of this is reported before anything is written.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from modkit.building.migration import find_due, find_known, find_prefixes
from modkit.errors import LocalPart, MissingPart, SpecError, is_inside
from modkit.parts.entry import Entry
from modkit.runs.lock import find_drift, read_rows, suggest_install
from modkit.runs.run import Run
from modkit.specs.overrides import is_override
from modkit.specs.spec import SURROUNDINGS

__all__ = ["explain_failure", "find_loadable", "find_missing", "suggest_remedies", "verify", "verify_local"]

_logger = logging.getLogger(__name__)


def verify(run: Run, needs: Collection[str] = SURROUNDINGS, *, locked: bool = False) -> None:
    """Warns once if parts of a run's model, or of what is needed around it, differ from those that it was made with.

    Args:
        run: The run.
        needs: What is needed besides the model, of `SURROUNDINGS`.
        locked: Whether to raise an error instead, of any part of the run; also for missing parts or another torch.

    Raises:
        ValueError: If `locked` and something differs, or if the run's lock is not valid.
    """
    try:
        rows = [row for row in read_rows(run.lock) if locked or _is_used(row, needs)]
        entries = [entry for row in rows if (entry := find_loadable(row))]
    except ValueError as error:
        raise ValueError(f"{run.path / 'modkit.lock'}: {error}") from error
    differences = find_drift(run.lock, entries)
    if locked:
        if run.lock.get("torch") != str(torch.__version__):
            differences.append(f"torch was {run.lock.get('torch')}, now {torch.__version__}")
        differences += find_missing(run)
        if differences:
            raise ValueError(f"{run.path} is locked to the parts that it was made with:\n{_format_list(differences)}")
    if differences:
        _logger.warning("%s was made with other versions of its parts:\n%s", run.path, _format_list(differences))


def verify_local(run: Run, local: Mapping[str, Mapping[str, str]], *, locked: bool = False) -> None:
    """Warns if the code of local parts of a run, which no package has registered, has changed.

    Args:
        run: The run; of one by an earlier version, whose lock has no such code, nothing is known.
        local: The local parts of what is to go on with it, as `Plan.describe_local` has them.
        locked: Whether to raise an error instead.

    Raises:
        ValueError: If `locked` and something differs.
    """
    then = run.lock.get("local", {})
    differences = [
        f"{path}: the code of {one['target']} has changed"
        for path, one in local.items()
        if path in then and then[path]["target"] == one["target"] and then[path]["sha256"] != one["sha256"]
    ]
    if differences and locked:
        raise ValueError(f"{run.path} is locked to the parts that it was made with:\n{_format_list(differences)}")
    if differences:
        _logger.warning("%s was made with other versions of its parts:\n%s", run.path, _format_list(differences))


def find_missing(run: Run, at: str = "") -> list[str]:
    """Lists the missing parts of a run, at a path of its spec or below, each with the command that installs it."""
    return [
        suggest_install(row)
        for row in _find_absent(run)
        if not at or any(is_inside(path, (at,)) for path in row.get("at", ()))
    ]


@contextmanager
def explain_failure(run: Run) -> Iterator[None]:
    """Explains why a run's spec cannot be built: which part is missing or has changed, and how to resolve it.

    Raises:
        ValueError: In place of a `SpecError` inside the block, if there is such a reason.
    """
    try:
        yield
    except SpecError as error:
        reasons = [problem.reason for problem in error.problems]
        if any(isinstance(one, LocalPart) for one in reasons):
            hint = "hand it in, by model= or data="
            raise SpecError(
                replace(one, hint=hint) if isinstance(one.reason, LocalPart) else one for one in error.problems
            ) from error
        missing = {(one.kind, one.name) for one in reasons if isinstance(one, MissingPart)}
        wanted = [row for row in _find_absent(run) if (row["kind"], row["name"]) in missing]
        if absent := [suggest_install(row) for row in wanted]:
            raise ValueError(f"{run.path} needs parts that are not installed:\n{_format_list(absent)}") from error
        paths = [problem.path for problem in error.problems if not is_override(problem.position)]
        if paths and (remedies := suggest_remedies(run, paths)):
            listed = _format_list([*map(str, error.problems), *remedies])
            raise ValueError(f"{run.path} does not fit the parts that are installed:\n{listed}") from error
        raise


def suggest_remedies(run: Run, paths: Iterable[str] = (), keys: Iterable[str] = ()) -> list[str]:
    """Suggests what to do about parts that have changed since a run was made and that no longer fit it.

    Args:
        run: The run.
        paths: Paths of its spec at which something does not fit.
        keys: Keys of its model's state dict that do not fit.
    """
    paths, keys = list(paths), dict.fromkeys(keys)

    def meant(at: str) -> bool:
        found = find_prefixes(at, keys, run.lock.get("modules", {}))
        return bool(found) or any(is_inside(path, (at,)) for path in paths)

    reasons = [f"{migration} returned what does not fit" for migration in find_due(run) if meant(migration.path)]
    for row in read_rows(run.lock):
        entry = find_loadable(row)
        migrated = entry is not None and entry.part.migrate and "at" in row
        if entry and not migrated and ("at" not in row or any(map(meant, row["at"]))) and find_drift(run.lock, [entry]):
            reasons.append(_suggest_remedy(row, entry))
    return reasons


def _find_absent(run: Run) -> list[Mapping[str, Any]]:
    return [row for row in read_rows(run.lock) if find_known(row) is None]


def _suggest_remedy(row: Mapping[str, Any], entry: Entry) -> str:
    part = f"{row['kind']} {row['name']}"
    if (row["distribution"], row["version"]) == (entry.distribution, entry.version):
        return f"{part} has changed without a new version: release a new one and declare `migrate`, or undo the change"
    old = shlex.quote(f"{row['distribution']}=={row['version']}")
    changed = f"{part} came with {row['distribution']} {row['version']}, {entry.version} is installed"
    if entry.part.migrate:
        return f"{changed}, and the run's lock is too old for a migration: pip install {old}"
    author = f"or ask the author of {entry.distribution} for one"
    return f"{changed}, which declares no `migrate` for it: pip install {old}, {author}"


def find_loadable(row: Mapping[str, Any]) -> Entry | None:
    """Returns the installed part of a row of a lock, or None if there is none or it cannot be imported."""
    if entry := find_known(row):
        try:
            entry.part.load()
        except Exception:
            return None
    return entry


def _is_used(row: Mapping[str, Any], needs: Collection[str]) -> bool:
    """Whether a part is in the model or in what is needed around it; of locks without places, every part is."""
    return not row.get("at") or any(is_inside(path, ("model", *needs)) for path in row["at"])


def _format_list(sentences: Iterable[str]) -> str:
    return "\n".join(f"  {sentence}" for sentence in dict.fromkeys(sentences))
