"""Revisions: the changes with which a run went on after it was made, kept in its lock.

The lock names the spec by its hash, and the former one: it is written before the spec, so that a kill between the two
leaves either. A revision that was cut off so never took effect, and the next one takes it out of the lock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modkit.runs.files import hash_data
from modkit.runs.layout import LOCK, SPEC

__all__ = ["check_spec", "is_half_revised", "list_revisions", "revise_lock"]


def is_half_revised(lock: Mapping[str, Any], spec_text: str) -> bool:
    """Whether a revision was cut off: the lock is of a spec that was not written."""
    return "spec" in lock and lock["spec"] != hash_data(spec_text)


def list_revisions(lock: Mapping[str, Any], spec_text: str) -> list[dict[str, Any]]:
    """Lists the revisions that took effect: each has the step from which it holds, and its changes."""
    return list(lock.get("revisions", []))[: -1 if is_half_revised(lock, spec_text) else None]


def check_spec(lock: Mapping[str, Any], spec_text: str, path: Path) -> None:
    """Checks that the spec in a run's directory is the one that the run was made, or is being revised, with.

    Raises:
        ValueError: If it was changed.
    """
    if "spec" in lock and hash_data(spec_text) not in (lock["spec"], lock.get("former")):
        raise ValueError(
            f"{path / SPEC} was changed after the run was made: its SHA-256 differs from the one in {LOCK}; "
            "restore the file, and give changes as overrides"
        )


def revise_lock(
    lock: Mapping[str, Any],
    spec_text: str,
    new_lock: Mapping[str, Any],
    new_text: str,
    changes: Sequence[Mapping[str, Any]],
    step: int,
) -> dict[str, Any]:
    """Makes the lock of a run that goes on with another spec.

    Args:
        lock: The lock of the run, with its spec.
        spec_text: That spec, YAML.
        new_lock: What the run goes on with: the rows of its parts that are new are added, and its data
            replace the former ones.
        new_text: The spec that it goes on with, YAML.
        changes: What has changed, as plain JSON; none if only a revision that was cut off is taken out.
        step: The step from which the changes hold.
    """
    known = {(row["kind"], row["name"]): row for row in lock["parts"]}
    data = {name: new_lock[name] for name in ("splits", "data") if name in new_lock}
    parts = [{**known.get((row["kind"], row["name"]), row), "at": row["at"]} for row in new_lock["parts"]]
    added = [{"step": step, "changes": list(changes)}] if changes else []
    return {
        **lock,
        **data,
        "spec": hash_data(new_text),
        "former": hash_data(spec_text),
        "parts": parts,
        "revisions": [*list_revisions(lock, spec_text), *added],
    }
