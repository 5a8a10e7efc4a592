"""The lock: what a run was made with, so that a reader can tell what differs and how to mend it.

    parts       each part used: its distribution and version, the SHA-256 of the source file that defines it, where in
                the spec it stands (`at`), and the commit that it was installed from, where that is a checkout
    python, torch, numpy, packages      versions, the last of what the parts' distributions require
    commit      that of the working directory, and whether it was changed since
    seed, spec  the training seed, and the SHA-256 of the resolved spec
    model, state                        the model's state-dict keys and shapes, the first as a hash

Format 1 had no `at`, `packages`, `commit` and `state`; it is read all the same.
"""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch
from packaging.requirements import Requirement

from modkit.part import Part
from modkit.runs.git import commit

__all__ = ["Entry", "compare", "find_drift", "install", "lock", "rows"]

_FORMAT = 2
_FORMATS = (1, 2)
_FIELDS = ("kind", "name", "distribution", "version")


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


def lock(
    parts: Iterable[Entry],
    *,
    spec_text: str,
    seed: int,
    keys: Mapping[str, Sequence[int]],
    places: Mapping[tuple[str, str], Sequence[str]],
) -> dict[str, Any]:
    """The lock of a run, as JSON.

    Args:
        parts: The parts used, in any order; each once in the result.
        spec_text: The resolved spec, YAML.
        seed: The training seed.
        keys: The shapes of the model's state dict by key.
        places: The paths in the spec at which a part stands, by its kind and name.

    Raises:
        ValueError: If a part's target does not resolve.
    """
    used = {(entry.part.kind, entry.part.name, entry.distribution): entry for entry in parts}
    origins = {name: _origin(name) for name in sorted({entry.distribution for entry in used.values()})}
    found = []
    for key in sorted(used):
        row: dict[str, Any] = _row(used[key]) | {"at": sorted(places.get(key[:2], ()))}
        found.append(row | ({"commit": origins[key[2]]} if origins[key[2]] else {}))
    return {
        "format": _FORMAT,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "packages": _required(origins),
        "commit": commit(Path.cwd()),
        "seed": seed,
        "spec": hashlib.sha256(spec_text.encode()).hexdigest(),
        "model": _digest(sorted((key, list(shape)) for key, shape in keys.items())),
        "state": {key: list(keys[key]) for key in sorted(keys)},
        "parts": found,
    }


def rows(lock: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of the parts in a lock: `kind`, `name`, `distribution`, `version`, `sha256` and, since format 2, `at`.

    Raises:
        ValueError: If it is no lock.
    """
    if lock.get("format") not in _FORMATS or not isinstance(lock.get("parts"), list):
        known = " or ".join(map(str, _FORMATS))
        raise ValueError(f"expected a lock of format {known}, got format {lock.get('format')!r}")
    for row in lock["parts"]:
        if not isinstance(row, dict) or "sha256" not in row or any(type(row.get(name)) is not str for name in _FIELDS):
            raise ValueError(f"expected a lock's parts to have {', '.join(_FIELDS)} and sha256, got {row!r}")
        at = row.get("at", [])
        if not isinstance(at, list) or any(type(path) is not str for path in at):
            raise ValueError(f"expected a lock's parts to have `at`, a list of paths, got {at!r}")
    return list(lock["parts"])


def find_drift(lock: Mapping[str, Any], entries: Iterable[Entry]) -> list[str]:
    """How the parts that are here differ from those that a lock has, a sentence each; empty if they do not.

    A part is known by its name or a former one. One that is in only one of the two is passed over.

    Raises:
        ValueError: If it is no lock.
    """
    here = {(entry.part.kind, name): entry for entry in entries for name in (entry.part.name, *entry.part.aliases)}
    pairs = [(row, here[row["kind"], row["name"]]) for row in rows(lock) if (row["kind"], row["name"]) in here]
    return _format_drift([(row, _row(entry)) for row, entry in pairs])


def compare(lock: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between a run's lock and one made now, a sentence each; empty if nothing does.

    A part that is not there now comes with the `pip install` that mends it. What an older format lacks is passed over.

    Raises:
        ValueError: If one of them is no lock.
    """
    then, found = _keyed(lock), _keyed(now)
    differences = [install(then[key]) for key in sorted(then.keys() - found.keys())]
    differences += [f"{kind} {name} of {whose} is new" for kind, name, whose in sorted(found.keys() - then.keys())]
    differences += _format_drift([(then[key], found[key]) for key in sorted(then.keys() & found.keys())])
    versions = [_versions(one) for one in (lock, now)]
    for name in dict.fromkeys(name for one in versions for name in one):
        if all(name in one for one in versions) and versions[0][name] != versions[1][name]:
            differences.append(f"{name} was {versions[0][name]}, is {versions[1][name]}")
    if lock.get("spec") != now.get("spec"):
        differences.append("the resolved spec has changed")
    if lock.get("model") != now.get("model"):
        differences.append("the model's state-dict keys or shapes have changed")
    return differences


def install(row: Mapping[str, Any]) -> str:
    """That a part is missing, and the `pip install` that mends it."""
    name, version = row["distribution"], row["version"]
    try:
        installed = metadata.version(name)
        present = f"{installed} is installed"
    except (metadata.PackageNotFoundError, ValueError):
        installed, present = None, "it is not installed"
    command = f"pip install {shlex.quote(f'{name}=={version}' if version else name)}"
    if installed == version:
        command = "`modkit doctor` says what is wrong with it"
    origin = f"{name} {version}".strip()
    return f"{row['kind']} {row['name']} is missing: it came with {origin}, {present}: {command}"


def _row(entry: Entry) -> dict[str, str | None]:
    return {
        "kind": entry.part.kind,
        "name": entry.part.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "sha256": _source_hash(entry.part),
    }


def _format_drift(pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """How parts differ, each as it was and as it is."""
    pairs = list(pairs)
    versions = sorted({(_brought(a), _brought(b)) for a, b in pairs if _brought(a) != _brought(b)})
    told = [
        f"{name} was {old}, is {new}" if name == whose else f"{name} {old} was, is {whose} {new}"
        for (name, old), (whose, new) in versions
    ]
    edited = [a for a, b in pairs if a["sha256"] != b["sha256"]]
    return told + [f"{row['kind']} {row['name']}: its source file has changed" for row in edited]


def _brought(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["distribution"], row["version"]


def _keyed(lock: Mapping[str, Any]) -> dict[tuple[str, str, str], Mapping[str, Any]]:
    return {(row["kind"], row["name"], row["distribution"]): row for row in rows(lock)}


def _versions(lock: Mapping[str, Any]) -> dict[str, Any]:
    """Everything else that a lock states in a word."""
    made: dict[str, Any] = {name: lock[name] for name in ("python", "torch", "numpy", "seed") if name in lock}
    made |= lock.get("packages") or {}
    if found := lock.get("commit"):
        made["commit"] = f"{found['commit']}{' and changes' if found['dirty'] else ''}"
    return made


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


@functools.cache
def _origin(distribution: str) -> dict[str, str | bool] | None:
    """The commit of the checkout that a distribution is installed from, in place, as this process met it."""
    try:
        text = metadata.distribution(distribution).read_text("direct_url.json")
        found = json.loads(text) if text else {}
        editable, url = found.get("dir_info", {}).get("editable"), urlparse(found.get("url", ""))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return None
    return commit(Path(url2pathname(url.path))) if editable and url.scheme == "file" else None


def _required(distributions: Iterable[str]) -> dict[str, str]:
    """The versions of what distributions require, of what is installed of it."""
    names = {name for distribution in distributions for name in _requirements(distribution)}
    found = {name: _version(name) for name in sorted(names - {"torch", "numpy"})}
    return {name: version for name, version in found.items() if version}


@functools.cache
def _requirements(distribution: str) -> tuple[str, ...]:
    try:
        needed = [Requirement(text) for text in metadata.requires(distribution) or ()]
    except (metadata.PackageNotFoundError, ValueError):
        return ()
    return tuple(one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""}))


@functools.cache
def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        return None
