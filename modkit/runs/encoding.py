"""What a checkpoint holds, and its manifest, which vouches for its files.

    {"format": 2,
     "files": {file: {"size": …, "sha256": …, "group": …, "slices": {stored key: [shape, offset]}, "frozen": …}},
     "tensors": {group: {key: stored key}},
     "sha256": …}                                 of the manifest without this line

The tensors of a group lie in one file or several, each under the first of its keys, whole or in slices. Checkpoints of
a run share files of what does not change. In format 1, which is read too, a group has one file, `GROUP.safetensors`.

Nothing is pickled: untrusted bytes give tensors and JSON, or a `CheckpointError`. Equal contents give equal bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from modkit.runs.files import hash_data
from modkit.runs.slices import Slice, assemble, check_slices

__all__ = [
    "MANIFEST", "STATE", "Checkpoint", "CheckpointError", "FileEntry", "Joined", "Manifest", "check_name",
    "dump_entries", "dump_manifest", "dump_state", "join", "parse_entries", "parse_manifest", "parse_state",
]  # fmt: skip

MANIFEST = "manifest.json"
STATE = "state.json"

_FORMAT = 2
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class CheckpointError(ValueError):
    """A checkpoint is damaged, missing or of an unknown format."""


@dataclass
class Checkpoint:
    """The content of a checkpoint.

    Args:
        tensors: Named tensors by group ("model", "ema", "optimizer", …). A tensor with several names in a group is
            stored once and loaded as one tensor. Of a tensor of which each process holds a slice, each stores its own;
            it is loaded whole.
        state: Everything else, as plain JSON: finite numbers, strings, booleans, None, lists, and dicts with strings as
            keys.
        frozen: Keys by group whose tensors stay as they are, which the checkpoints of a folder store once.
    """

    tensors: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    frozen: Mapping[str, Collection[str]] = field(default_factory=dict, repr=False)


class FileEntry(NamedTuple):
    """A file of a checkpoint.

    Args:
        size: Its size in bytes.
        sha256: Its SHA-256.
        group: The group whose tensors it holds; None for the state.
        slices: Where those of its tensors lie that are slices, by stored key.
        frozen: Whether it lies beside the checkpoints, which share it.
    """

    size: int
    sha256: str
    group: str | None = None
    slices: Mapping[str, Slice] = {}
    frozen: bool = False


class Manifest(NamedTuple):
    """What a checkpoint consists of: its files by name, and the stored key by group and key."""

    files: dict[str, FileEntry]
    keys: dict[str, dict[str, str]]


def check_name(what: str, name: str) -> None:
    """Checks that a name of a checkpoint or a group can be a file name.

    Raises:
        ValueError: If it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"Checkpoint expects {what} of letters, digits, '.', '_' and '-' that does not start with '.', got {name!r}"
        )


def dump_entries(files: Mapping[str, FileEntry]) -> bytes:
    """Encodes what one of several processes has written."""
    return _dump({file: _make_row(entry) for file, entry in files.items()})


def parse_entries(file: str, data: bytes) -> dict[str, FileEntry]:
    """Parses what `dump_entries` encoded.

    Raises:
        CheckpointError: If it is not that.
    """
    return _read_rows(file, _parse(file, data))


def dump_manifest(manifest: Manifest) -> bytes:
    """Encodes a manifest."""
    rows = {file: _make_row(entry) for file, entry in manifest.files.items()}
    content: dict[str, Any] = {"format": _FORMAT, "files": rows, "tensors": manifest.keys}
    return _dump({**content, "sha256": hash_data(_dump(content))})


def parse_manifest(data: bytes) -> Manifest:
    """Parses a manifest, of format 1 too.

    Raises:
        CheckpointError: If it is damaged or of another format.
    """
    manifest = _parse(MANIFEST, data)
    if manifest.get("format") not in (1, _FORMAT):
        raise CheckpointError(
            f"{MANIFEST} has format {manifest.get('format')!r}; this version of modkit reads formats 1 and {_FORMAT}"
        )
    if manifest.pop("sha256", None) != hash_data(_dump(manifest)):
        raise CheckpointError(f"{MANIFEST} is damaged: its content does not match its SHA-256")
    try:
        rows = manifest["files"]
        if manifest["format"] == 1:
            ending = ".safetensors"
            rows = {f: {**r, "group": f.removesuffix(ending)} if f.endswith(ending) else r for f, r in rows.items()}
        keys = {group: {key: str(stored) for key, stored in row.items()} for group, row in manifest["tensors"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{MANIFEST} lacks a file or a key") from error
    files = _read_rows(MANIFEST, rows)
    groups = {entry.group for entry in files.values() if entry.group is not None}
    if groups != {*keys} or [file for file, entry in files.items() if entry.group is None] != [STATE]:
        raise CheckpointError(f"{MANIFEST} lists files {sorted(files)} for groups {sorted(keys)}")
    return Manifest(files, keys)


def dump_state(state: dict[str, Any]) -> bytes:
    """Encodes a state.

    Raises:
        ValueError: If it is not plain JSON.
    """
    odd = _find_misfit(state, "state")
    if odd or not isinstance(state, dict):
        raise ValueError(f"Checkpoint expects a dict of JSON as its state, got {odd or type(state).__name__}")
    return _dump(state)


def parse_state(data: bytes) -> dict[str, Any]:
    """Parses a state.

    Raises:
        CheckpointError: If it is not JSON as `dump_state` writes it.
    """
    return _parse(STATE, data)


class Joined(Mapping[str, Tensor]):
    """The tensors of a group by key; those of which there are slices are assembled when they are looked up.

    Args:
        keys: The stored key by key.
        whole: Tensors by stored key.
        pieces: The slices of the others.
    """

    def __init__(
        self,
        keys: Mapping[str, str],
        whole: Mapping[str, Tensor],
        pieces: Mapping[str, Sequence[tuple[Tensor, Slice]]],
    ) -> None:
        self._keys, self._whole, self._pieces = keys, whole, pieces

    def __getitem__(self, key: str) -> Tensor:
        stored = self._keys[key]
        return assemble(self._pieces[stored]) if stored in self._pieces else self._whole[stored]

    def assemble(self) -> dict[str, Tensor]:
        """Assembles all of them; what has several keys is one tensor."""
        whole = {**self._whole, **{stored: assemble(parts) for stored, parts in self._pieces.items()}}
        return {key: whole[stored] for key, stored in self._keys.items()}

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def join(files: Mapping[str, Mapping[str, Tensor]], manifest: Manifest, group: str) -> Joined:
    """Joins the tensors of a group, which lie in one file or several.

    Args:
        files: The tensors of each file of the group, by stored key.
        manifest: The manifest.
        group: The group.

    Raises:
        CheckpointError: If they are not those of the manifest.
    """
    whole: dict[str, Tensor] = {}
    pieces: dict[str, list[tuple[Tensor, Slice]]] = {}
    for file, tensors in files.items():
        for stored, value in tensors.items():
            if place := manifest.files[file].slices.get(stored):
                pieces.setdefault(stored, []).append((value, place))
            else:
                whole[stored] = value
    keys = manifest.keys[group]
    if odd := sorted({*whole, *pieces} ^ set(keys.values())):
        raise CheckpointError(f"{', '.join(files)} and the manifest differ in the keys {odd[:5]}")
    for stored, parts in pieces.items():
        try:
            check_slices(parts)
        except ValueError as error:
            raise CheckpointError(f"{', '.join(files)} do not hold {stored}: {error}") from error
    return Joined(keys, whole, pieces)


def _make_row(entry: FileEntry) -> dict[str, Any]:
    row = {"size": entry.size, "sha256": entry.sha256, "group": entry.group, "frozen": entry.frozen}
    row["slices"] = {stored: list(place) for stored, place in entry.slices.items()}
    return {name: value for name, value in row.items() if value}


def _read_rows(where: str, rows: Any) -> dict[str, FileEntry]:
    try:
        return {file: _read_row(file, row) for file, row in rows.items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{where} lacks a size, a hash or a group, or has an odd one: {error!r}") from error


def _read_row(file: str, row: Mapping[str, Any]) -> FileEntry:
    group = row.get("group")
    if not _NAME.fullmatch(file) or group is not None and not _NAME.fullmatch(group):
        raise ValueError(f"the file {file!r} of the group {group!r}")
    slices = {stored: Slice(*map(_read_sizes, place)) for stored, place in row.get("slices", {}).items()}
    return FileEntry(int(row["size"]), str(row["sha256"]), group, slices, bool(row.get("frozen")))


def _read_sizes(sizes: Any) -> list[int]:
    if not isinstance(sizes, list) or any(type(size) is not int or size < 0 for size in sizes):
        raise ValueError(f"expected sizes, got {sizes!r}")
    return sizes


def _dump(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, indent=1).encode()


def _parse(file: str, data: bytes) -> dict[str, Any]:
    """Parses JSON in exactly the form in which it was written, which rules out NaN, infinities and repeated keys."""
    try:
        value = json.loads(data)
        canonical = _dump(value) == data
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not valid JSON: {error}") from error
    if not canonical or not isinstance(value, dict):
        raise CheckpointError(f"{file} is not JSON in the form that modkit writes")
    return value


def _find_misfit(value: object, path: str) -> str | None:
    """Finds the first value that JSON would refuse or change, and its path."""
    if isinstance(value, dict):
        keys = (f"the key {key!r} in {path}" for key in value if type(key) is not str)
        return next(keys, None) or _find_first(_find_misfit(item, f"{path}.{key}") for key, item in value.items())
    if isinstance(value, list):
        return _find_first(_find_misfit(item, f"{path}[{index}]") for index, item in enumerate(value))
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return None
    return f"{type(value).__name__} {value!r} at {path}"


def _find_first(found: Iterable[str | None]) -> str | None:
    return next((item for item in found if item is not None), None)
