"""The lock: what a run was made with, so that a reader can tell what differs and how to mend it.

For each part used its distribution, version and the SHA-256 of the source file that defines it; the versions of Python,
torch and numpy; the seed; a hash of the resolved spec; and one of the model's state-dict keys and shapes.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from modkit.part import Part

__all__ = ["Entry", "compare", "lock"]

_FORMAT = 1


class Entry(Protocol):
    """A part as the registry keeps it: with the distribution that declares it, and its version."""

    @property
    def part(self) -> Part:
        """The declaration."""
        ...

    @property
    def distribution(self) -> str:
        """Name of the distribution."""
        ...

    @property
    def version(self) -> str:
        """Its version."""
        ...


def lock(parts: Iterable[Entry], *, spec_text: str, seed: int, keys: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """The lock of a run, as JSON.

    Args:
        parts: The parts used, in any order; each once in the result.
        spec_text: The resolved spec, YAML.
        seed: The training seed.
        keys: The shapes of the model's state dict by key.

    Raises:
        ValueError: If a part's target does not resolve.
    """
    rows = {(entry.part.kind, entry.part.name, entry.distribution): _row(entry) for entry in parts}
    return {
        "format": _FORMAT,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "seed": seed,
        "spec": hashlib.sha256(spec_text.encode()).hexdigest(),
        "model": _digest(sorted((key, list(shape)) for key, shape in keys.items())),
        "parts": [rows[key] for key in sorted(rows)],
    }


def compare(lock: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between a run's lock and one made now, a sentence each; empty if nothing does.

    A part that is not there now comes with the `pip install` that mends it.

    Raises:
        ValueError: If one of them is no lock.
    """
    then, found = _rows(lock), _rows(now)
    differences = [_missing(then[key]) for key in sorted(then.keys() - found.keys())]
    differences += [f"{kind} {name} of {whose} is new" for kind, name, whose in sorted(found.keys() - then.keys())]
    both = [(then[key], found[key]) for key in sorted(then.keys() & found.keys())]
    versions = {(a["distribution"], a["version"], b["version"]) for a, b in both if a["version"] != b["version"]}
    differences += [f"{name} was {old}, is {new}" for name, old, new in sorted(versions)]
    edited = [a for a, b in both if a["sha256"] != b["sha256"]]
    differences += [f"{row['kind']} {row['name']}: its source file has changed" for row in edited]
    for name in ("python", "torch", "numpy", "seed"):
        if lock.get(name) != now.get(name):
            differences.append(f"{name} was {lock.get(name)}, is {now.get(name)}")
    if lock.get("spec") != now.get("spec"):
        differences.append("the resolved spec has changed")
    if lock.get("model") != now.get("model"):
        differences.append("the model's state-dict keys or shapes have changed")
    return differences


def _row(entry: Entry) -> dict[str, str | None]:
    return {
        "kind": entry.part.kind,
        "name": entry.part.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "sha256": _source_hash(entry.part),
    }


def _source_hash(part: Part) -> str | None:
    """Hash of the file that defines the target, following wrappers; None where there is no file (a built-in)."""
    target: Any = part.load()
    while isinstance(target, functools.partial) or hasattr(target, "__wrapped__"):
        target = target.func if isinstance(target, functools.partial) else target.__wrapped__
    module = sys.modules.get(getattr(target, "__module__", None) or part.target.partition(":")[0])
    file = getattr(module, "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else None


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _rows(lock: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    fields = ("kind", "name", "distribution", "version")
    if lock.get("format") != _FORMAT or not isinstance(lock.get("parts"), list):
        raise ValueError(f"compare expects a lock of format {_FORMAT}, got format {lock.get('format')!r}")
    for row in lock["parts"]:
        if not isinstance(row, dict) or "sha256" not in row or any(type(row.get(name)) is not str for name in fields):
            raise ValueError(f"compare expects parts with {', '.join(fields)} and sha256, got {row!r}")
    return {(row["kind"], row["name"], row["distribution"]): row for row in lock["parts"]}


def _missing(row: Mapping[str, Any]) -> str:
    try:
        present = f"{importlib.metadata.version(row['distribution'])} is installed"
    except (importlib.metadata.PackageNotFoundError, ValueError):
        present = "it is not installed"
    command = f"pip install {shlex.quote(row['distribution'] + '==' + row['version'])}"
    origin = f"{row['distribution']} {row['version']}"
    return f"{row['kind']} {row['name']} is missing: it came with {origin}, {present}: {command}"
