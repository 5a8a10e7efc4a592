"""The lock: what a run was made with, to find out what has changed since and how to restore it.

    parts       each part used: its distribution and version, the SHA-256 of its source file, its paths in the spec
                (`at`), and the commit of its distribution if that is installed from a checkout
    python, torch, numpy                versions
    threads     the number of threads that torch computes with; sums in another order differ in their last bits
    stage_threads                       the number of threads of each stage of training
    nondeterministic                    an operation without a deterministic form, if training with `deterministic` met
                one: the run then has other last bits when it is repeated
    sources     a hash of each module that the parts of plug-ins import of their distributions
    local       the target of each local part, which no package has registered, and the SHA-256 of its code, by its path
    packages                            versions of the packages that the parts' distributions require
    commit      the commit of the working directory, and whether files were changed since
    seed, spec  the training seed, and the SHA-256 of the resolved spec
    model       a hash of the keys and shapes of the model's state dict
    state       the same keys and shapes in full
    modules     the names in the model of the modules of parts by their paths in the spec, where these are not the names
    splits      the number of samples in each split of the data
    data        the hash of the data's content and preprocessing, their `key`, if the run was trained
    run         a hash of all this, which the run's checkpoints carry
    sha256      a hash of the file, which finds damage

Format 1, without `at`, `packages`, `commit` and `state`, can still be read; so can locks without `splits`, `data`,
`sources` and `local`.
"""

from __future__ import annotations

import functools
import json
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse
from urllib.request import url2pathname

import numpy as np
import torch
from packaging.requirements import Requirement

from modkit.part import HERE, Part
from modkit.runs.files import hash_data
from modkit.runs.git import find_commit
from modkit.runs.origin import read_direct_url
from modkit.runs.sources import find_file, hash_sources

__all__ = ["RegistryEntry", "compare", "decode", "encode", "find_drift", "format_commit", "make_lock", "read_rows"]
__all__ += ["renew_row", "suggest_install"]

_FORMAT = 2
_FORMATS = (1, 2)
_SEAL = "sha256"
_FIELDS = ("kind", "name", "distribution", "version")
_TYPES = {"state": dict, "modules": dict, "written": dict, "revisions": list, "splits": dict, "data": str}
_TYPES |= {"nondeterministic": str, "sources": dict, "local": dict, "data_name": str, "addresses": dict}


class RegistryEntry(Protocol):
    """A part in the registry, with the name and version of the distribution that declares it."""

    @property
    def part(self) -> Part:
        """The declaration."""

    @property
    def distribution(self) -> str:
        """Name of the distribution."""

    @property
    def version(self) -> str:
        """Version of the distribution."""


def make_lock(
    parts: Iterable[RegistryEntry],
    *,
    spec_text: str,
    seed: int,
    keys: Mapping[str, Sequence[int]],
    places: Mapping[tuple[str, str], Sequence[str]],
) -> dict[str, Any]:
    """Makes the lock of a run, as plain JSON.

    Args:
        parts: The parts used, in any order; duplicates are removed.
        spec_text: The resolved spec, YAML.
        seed: The training seed.
        keys: The shapes in the model's state dict by key.
        places: The paths of each part in the spec, by kind and name.

    Raises:
        ValueError: If a part's target cannot be imported.
    """
    used = {(entry.part.kind, entry.part.name, entry.distribution): entry for entry in parts}
    origins = {name: _find_origin(name) for name in sorted({entry.distribution for entry in used.values()})}
    found = []
    for key in sorted(used):
        row: dict[str, Any] = _make_row(used[key]) | {"at": sorted(places.get(key[:2], ()))}
        found.append(row | ({"commit": origins[key[2]]} if origins[key[2]] else {}))
    made = {
        "format": _FORMAT,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "packages": _list_required(origins),
        "commit": find_commit(Path.cwd()),
        "seed": seed,
        "spec": hash_data(spec_text),
        "model": hash_data(json.dumps(sorted((key, list(shape)) for key, shape in keys.items()))),
        "state": {key: list(keys[key]) for key in sorted(keys)},
        "parts": found,
    }
    if sources := hash_sources(entry.part for entry in used.values()):
        made["sources"] = sources
    return {**made, "run": hash_data(json.dumps(made))}


def encode(lock: Mapping[str, Any]) -> bytes:
    """Encodes a lock for its file, with a hash of the rest."""
    rest = {name: value for name, value in lock.items() if name != _SEAL}
    return json.dumps({**rest, _SEAL: _hash(rest)}, allow_nan=False, indent=1).encode()


def decode(data: bytes) -> dict[str, Any]:
    """Decodes a lock's file, without its hash; those of earlier versions have none.

    Raises:
        ValueError: If it is no JSON object, is not what was written, or holds a value of another type.
    """
    try:
        lock = json.loads(data)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(lock, dict):
        raise ValueError(f"expected a JSON object, got {type(lock).__name__}")
    rest = {name: value for name, value in lock.items() if name != _SEAL}
    if _SEAL in lock and lock[_SEAL] != _hash(rest):
        raise ValueError("it was changed after it was written: its SHA-256 differs from the one that it holds")
    for name, expected in _TYPES.items():
        if name in rest and not isinstance(rest[name], expected):
            raise ValueError(f"expected `{name}` to be a {expected.__name__}, got {rest[name]!r}")
    for names in rest.get("modules", {}).values():
        if not (isinstance(names, list) and names and all(type(name) is str for name in names)):
            raise ValueError(f"expected `modules` to be lists of names by path, got {rest['modules']!r}")
    if not all(type(count) is int for count in rest.get("splits", {}).values()):
        raise ValueError(f"expected `splits` to be numbers of samples by name, got {rest['splits']!r}")
    if not all(isinstance(one, dict) and {"target", "sha256"} <= one.keys() for one in rest.get("local", {}).values()):
        raise ValueError(f"expected `local` to have target and sha256 by path, got {rest['local']!r}")
    return rest


def read_rows(lock: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Reads the rows of the parts in a lock: `kind`, `name`, `distribution`, `version`, `sha256`, `at` since format 2.

    Raises:
        ValueError: If it is not a valid lock.
    """
    if lock.get("format") not in _FORMATS or not isinstance(lock.get("parts"), list):
        known = " or ".join(map(str, _FORMATS))
        raise ValueError(f"expected a lock of format {known}, got format {lock.get('format')!r}")
    for row in lock["parts"]:
        if not isinstance(row, dict) or "sha256" not in row or any(type(row.get(name)) is not str for name in _FIELDS):
            raise ValueError(f"expected the parts of a lock to have {', '.join(_FIELDS)} and sha256, got {row!r}")
        at = row.get("at", [])
        if not isinstance(at, list) or any(type(path) is not str for path in at):
            raise ValueError(f"expected the parts of a lock to have a list of paths `at`, got {at!r}")
    return list(lock["parts"])


def format_commit(lock: Mapping[str, Any], changes: str) -> str:
    """Formats the commit in a lock, with ` and CHANGES` if files had been changed; empty if there is none.

    Raises:
        ValueError: If it is not a valid lock.
    """
    found = lock.get("commit")
    if not found:
        return ""
    if not isinstance(found, dict) or type(found.get("commit")) is not str or "dirty" not in found:
        raise ValueError(f"expected the commit of a lock to have commit and dirty, got {found!r}")
    return f"{found['commit']}{f' and {changes}' if found['dirty'] else ''}"


def find_drift(lock: Mapping[str, Any], entries: Iterable[RegistryEntry]) -> list[str]:
    """Describes how installed parts differ from those in a lock, one sentence each; empty if they do not.

    A part is matched by its name or a former name. Parts without a match are ignored.

    Raises:
        ValueError: If it is not a valid lock.
    """
    here = {(one.part.kind, name): one for one in entries for name in (one.part.name, *one.part.aliases)}
    rows = ((row, here.get((row["kind"], row["name"]))) for row in read_rows(lock))
    pairs = [(row, entry) for row, entry in rows if entry]
    return _describe_drift(pairs, lock.get("sources", {}))


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Describes what two runs were made with where it differs, one sentence each; empty if it does not.

    Only parts that both have count: which parts a run has, its parameters and its seed are in its spec. Keys that an
    older format lacks are ignored.

    Raises:
        ValueError: If one of them is not a valid lock.
    """
    first, second = _index(a), _index(b)
    shared = [(first[key], second[key]) for key in sorted(first.keys() & second.keys())]
    differences = [
        f"{row['kind']} {row['name']} comes from {' '.join(_get_distribution(row))} in the first run, "
        f"from {' '.join(_get_distribution(other))} in the second"
        for row, other in shared
        if row["distribution"] != other["distribution"]
    ]
    versions = [dict(map(_get_distribution, read_rows(one))) | _collect_versions(one) for one in (a, b)]
    for name, version in versions[0].items():
        if name in versions[1] and versions[1][name] != version:
            differences.append(f"{name} is {version} in the first run, {versions[1][name]} in the second")
    differences += [
        f"{row['kind']} {row['name']}: its source file differs"
        for row, other in shared
        if row["distribution"] == other["distribution"] and row["sha256"] != other["sha256"]
    ]
    digests = [one.get("sources", {}) for one in (a, b)]
    imported = [name for name in digests[0] if digests[0][name] != digests[1].get(name, digests[0][name])]
    differences += [f"{name}, which parts import, differs" for name in imported]
    if a.get("spec") == b.get("spec") and a.get("model") != b.get("model"):
        differences.append("the model's state-dict keys or shapes differ")
    return differences


def renew_row(row: Mapping[str, Any], entry: RegistryEntry) -> dict[str, Any]:
    """Makes the row of an installed part at the places that a lock has for it.

    Raises:
        ValueError: If the part's target cannot be imported.
    """
    return {**_make_row(entry), "at": row["at"]}


def suggest_install(row: Mapping[str, Any]) -> str:
    """Writes that a part is missing, with what restores it, such as a `pip install` command."""
    name, version = row["distribution"], row["version"]
    if name == HERE:
        call = f"modkit.register({row['kind']!r}, {row['name']!r}, …)"
        return (
            f"{row['kind']} {row['name']} is missing: it was registered with {call}, which each process does anew; "
            "`--parts FILE.py` does it for a command, and the run's folder `parts` has a copy of the file"
        )
    try:
        installed = metadata.version(name)
        present = f"{installed} is installed"
    except (metadata.PackageNotFoundError, ValueError):
        installed, present = None, "it is not installed"
    command = f"install it with: pip install {shlex.quote(f'{name}=={version}' if version else name)}"
    if installed == version:
        command = "run `modkit doctor` to see what is wrong"
    origin = f"{name} {version}".strip()
    return f"{row['kind']} {row['name']} is missing: it came with {origin}, {present}; {command}"


def _make_row(entry: RegistryEntry) -> dict[str, str | None]:
    return {
        "kind": entry.part.kind,
        "name": entry.part.name,
        "distribution": entry.distribution,
        "version": entry.version,
        "sha256": _hash_source(entry.part),
    }


def _describe_drift(found: Sequence[tuple[Mapping[str, Any], RegistryEntry]], sources: Mapping[str, Any]) -> list[str]:
    """Describes how parts, as rows of a lock and as they are installed, differ, and the modules that they import."""
    pairs = [(row, _make_row(entry)) for row, entry in found]
    versions = sorted(
        {(_get_distribution(a), _get_distribution(b)) for a, b in pairs if _get_distribution(a) != _get_distribution(b)}
    )
    sentences = [
        f"{name} was {old}, now {new}" if name == whose else f"{name} {old} was replaced by {whose} {new}"
        for (name, old), (whose, new) in versions
    ]
    edited = [a for a, b in pairs if a["sha256"] != b["sha256"]]
    sentences += [f"{row['kind']} {row['name']}: its source file has changed" for row in edited]
    same = [entry.part for row, entry in found if row["version"] == entry.version]
    now = hash_sources(same) if sources else {}
    changed = [name for name, digest in now.items() if sources.get(name, digest) != digest]
    return sentences + [f"{name}, which parts import, has changed" for name in changed]


def _get_distribution(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["distribution"], row["version"]


def _index(lock: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Returns the rows of a lock by kind and name."""
    return {(row["kind"], row["name"]): row for row in read_rows(lock)}


def _collect_versions(lock: Mapping[str, Any]) -> dict[str, Any]:
    """Collects the other versions and values in a lock."""
    made: dict[str, Any] = {name: lock[name] for name in ("python", "torch", "numpy", "threads") if name in lock}
    packages = lock.get("packages") or {}
    if not isinstance(packages, dict):
        raise ValueError(f"expected the packages of a lock to be versions by name, got {packages!r}")
    made |= packages
    if commit := format_commit(lock, "changes"):
        made["commit"] = commit
    return made


def _hash_source(part: Part) -> str | None:
    """Hashes the file that defines a part's target, following wrappers; None for built-ins, which have no file."""
    file = find_file(part.load())
    return hash_data(file.read_bytes()) if file else None


@functools.cache
def _find_origin(distribution: str) -> dict[str, str | bool | None] | None:
    """Finds the commit of the checkout from which a distribution is installed in place; None otherwise."""
    found = read_direct_url(distribution)
    editable, url = found.get("dir_info", {}).get("editable"), str(found.get("url", ""))
    return find_commit(Path(url2pathname(urlparse(url).path))) if editable and url.startswith("file:") else None


def _list_required(distributions: Iterable[str]) -> dict[str, str]:
    """Lists the installed versions of the packages that distributions require."""
    names = {name for distribution in distributions for name in _list_requirements(distribution)}
    found = {name: _find_version(name) for name in sorted(names - {"torch", "numpy"})}
    return {name: version for name, version in found.items() if version}


@functools.cache
def _list_requirements(distribution: str) -> tuple[str, ...]:
    try:
        needed = [Requirement(text) for text in metadata.requires(distribution) or ()]
    except (metadata.PackageNotFoundError, ValueError):
        return ()
    return tuple(one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""}))


@functools.cache
def _find_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except (metadata.PackageNotFoundError, ValueError):
        return None


def _hash(value: Mapping[str, Any]) -> str:
    return hash_data(json.dumps(value, allow_nan=False))
