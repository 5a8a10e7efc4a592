"""Checkpoints: named tensors and a JSON state in a folder that is whole or absent, whenever the writer is killed.

    directory/step-00001500/
        model.safetensors, ema.safetensors, …    one file a group of tensors
        state.json                               everything that is no tensor
        manifest.json                            size and SHA-256 of each file, and its own; written last

A checkpoint is written beside, as `.step-00001500.tmp-PID`, each file and the folder synced, and renamed. One of the
same name is first renamed aside, to `.step-00001500.old`, where readers find it until the new one stands. Nothing is
pickled: whatever a stranger's file holds, reading it gives tensors and JSON or a `CheckpointError`.

One process writes a directory at a time; any number may read it.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from modkit.runs.files import hash_sha256, sync_folder, write_file

__all__ = [
    "Checkpoint", "CheckpointError", "latest", "load", "names", "prune", "read", "recover", "rewind", "save", "write",
]  # fmt: skip

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_LEFT = re.compile(r"\.(.+)\.(?:tmp-\d+|(old))")
_MANIFEST = "manifest.json"
_STATE = "state.json"
_MANIFEST_LIMIT = 2**26
_DTYPES = frozenset(
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8),
        *(torch.bool, torch.complex64),
    )
)


class CheckpointError(ValueError):
    """A checkpoint that is damaged, foreign or missing."""


@dataclass
class Checkpoint:
    """What a checkpoint holds.

    Args:
        tensors: Named tensors by group ("model", "ema", "optimizer", …). One tensor under several names of a group is
            stored once and comes back as one tensor.
        state: Everything else, as JSON keeps it: finite numbers, strings, booleans, None, lists, and dicts with
            strings as keys.
    """

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def save(directory: Path, name: str, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint; it replaces one of the same name, and one of the two is whole at every instant.

    Args:
        directory: The folder of checkpoints; made where absent.
        name: Name of the new one, such as `step-00001500`.
        checkpoint: What to write. Tensors are copied to the CPU; neither they nor their gradients change.

    Returns:
        `directory / name`.

    Raises:
        ValueError: If a name is not plain, a value is no dense tensor, or the state is not JSON.
    """
    _checked_name("a name", name)
    files, manifest = _encoded(checkpoint)
    if not directory.is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        sync_folder(directory.parent)
    recover(directory)
    temporary = directory / f".{name}.tmp-{os.getpid()}"
    try:
        temporary.mkdir()
        _write(temporary, files, manifest)
        _install(temporary, directory / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return directory / name


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint into a folder that is there; a kill may leave a part of it.

    Raises:
        ValueError: As `save`.
    """
    _write(folder, *_encoded(checkpoint))


def load(path: Path) -> Checkpoint:
    """Reads and verifies the checkpoint at `path`; its tensors are on the CPU.

    Raises:
        CheckpointError: If it is missing, damaged or of another format; says which file, what is wrong, and which
            earlier checkpoint is whole.
    """
    try:
        return read(path)
    except CheckpointError as error:
        before = [name for name in names(path.parent) if _order(name) < _order(path.name)]
        whole = _last_whole(path.parent, before)
        offer = f"the last whole one before it is {whole}" if whole else "no whole one stands before it"
        raise CheckpointError(f"checkpoint {path}: {error}; {offer}") from error


def read(path: Path) -> Checkpoint:
    """Reads and verifies the checkpoint at `path`, as `load`; for one that stands alone.

    Raises:
        CheckpointError: If it is missing, damaged or of another format; says which file and what is wrong.
    """
    folder = _folder(path)
    if not folder.is_dir():
        raise CheckpointError("there is no such folder")
    files, keys = _parse_manifest(_read_file(folder / _MANIFEST, None))
    tensors = {}
    for group, row in keys.items():
        file = f"{group}.safetensors"
        tensors[group] = _parse_tensors(file, _read_verified(folder / file, *files[file]), row)
    return Checkpoint(tensors, _parse(_STATE, _read_verified(folder / _STATE, *files[_STATE])))


def names(directory: Path) -> list[str]:
    """Names of the checkpoints that look whole (their manifest is there), in order; numbers count as numbers."""
    if not directory.is_dir():
        return []
    found = {entry.name for entry in directory.iterdir() if _NAME.fullmatch(entry.name)}
    found |= {left[1] for entry in directory.iterdir() if (left := _LEFT.fullmatch(entry.name)) and left[2]}
    return sorted((name for name in found if (_folder(directory / name) / _MANIFEST).is_file()), key=_order)


def latest(directory: Path) -> Path | None:
    """The last checkpoint that verifies, or None."""
    return _last_whole(directory, names(directory))


def prune(directory: Path, keep: int, spare: Collection[str] = ()) -> None:
    """Removes all but the last `keep` checkpoints, and never one named in `spare`.

    Raises:
        ValueError: If `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"prune expects to keep at least 1 checkpoint, got keep={keep}")
    for name in names(directory)[:-keep]:
        if name not in spare:
            _remove(_folder(directory / name))


def rewind(directory: Path, path: Path | None) -> list[str]:
    """Removes the checkpoints that stand after `path`, or all: a run goes on from there and writes them anew.

    Returns:
        Their names.
    """
    after = [name for name in names(directory) if path is None or _order(name) > _order(path.name)]
    for name in after:
        _remove(_folder(directory / name))
    return after


def recover(directory: Path) -> None:
    """Clears away what a killed writer left; for the process that is going to write."""
    for entry in sorted(directory.iterdir()):
        left = _LEFT.fullmatch(entry.name)
        if left is None:
            continue
        if left[2] and not (directory / left[1]).exists():
            os.replace(entry, directory / left[1])
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    sync_folder(directory)


def _checked_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"Checkpoint expects {what} of letters, digits and . _ - (no . first), got {name!r}")


def _write(folder: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    for file, data in files.items():
        write_file(folder / file, data)
    write_file(folder / _MANIFEST, manifest)
    sync_folder(folder)


def _install(temporary: Path, path: Path) -> None:
    aside = _aside(path)
    if path.exists():
        os.replace(path, aside)
    os.replace(temporary, path)
    sync_folder(path.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _remove(folder: Path) -> None:
    """Removes a checkpoint: first out of sight, so that none is ever seen in part."""
    hidden = folder.with_name(f".{folder.name.strip('.')}.tmp-{os.getpid()}")
    os.replace(folder, hidden)
    shutil.rmtree(hidden)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _folder(path: Path) -> Path:
    """Where the checkpoint `path` is now: a writer killed while replacing it left it aside."""
    return path if path.exists() or not _aside(path).exists() else _aside(path)


def _order(name: str) -> list[tuple[int, int, str]]:
    return [(1, int(piece), piece) if piece.isdecimal() else (0, 0, piece) for piece in re.split(r"([0-9]+)", name)]


def _last_whole(directory: Path, candidates: list[str]) -> Path | None:
    for name in reversed(candidates):
        try:
            read(directory / name)
        except CheckpointError:
            continue
        return directory / name
    return None


def _encoded(checkpoint: Checkpoint) -> tuple[dict[str, bytes], bytes]:
    """The files by name, and the manifest."""
    files, keys = {}, {}
    for group, tensors in checkpoint.tensors.items():
        _checked_name("a group's name", group)
        stored, keys[group] = _stored(group, tensors)
        files[f"{group}.safetensors"] = safetensors.torch.save(stored)
    files[_STATE] = _dump_state(checkpoint.state)
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "files": {file: {"size": len(data), "sha256": hash_sha256(data)} for file, data in files.items()},
        "tensors": keys,
    }
    manifest["sha256"] = hash_sha256(_dump(manifest))
    return files, _dump(manifest)


def _stored(group: str, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Contiguous CPU copies of the distinct tensors, and for each key the one under which its tensor is stored."""
    plain: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise ValueError(f"Checkpoint expects dense tensors with values, got {_described(value)} at {group}/{key}")
        if key == "__metadata__" or value.dtype not in _DTYPES:
            raise ValueError(f"Checkpoint cannot store a tensor of {value.dtype} named {key!r} (group {group})")
        plain[key] = value.detach().resolve_conj().resolve_neg()
    first: dict[object, str] = {}
    keys: dict[str, str] = {}
    for key, value in plain.items():
        keys[key] = first.setdefault(_identity(value) if value.numel() else key, key)
    return {key: _copied(plain[key]) for key in dict.fromkeys(keys.values())}, keys


def _copied(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype).copy_(value)  # contiguous, and alone in its storage


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"a tensor of {value.layout} on {value.device}"


def _identity(value: Tensor) -> object:
    start = value.untyped_storage().data_ptr()
    return value.device, start, value.storage_offset(), value.shape, value.stride(), value.dtype


def _read_verified(path: Path, size: int, sha256: str) -> bytes:
    data = _read_file(path, size)
    if hash_sha256(data) != sha256:
        raise CheckpointError(f"{path.name} is damaged: its SHA-256 is {hash_sha256(data)}, the manifest says {sha256}")
    return data


def _read_file(path: Path, size: int | None) -> bytes:
    """The content of a plain file of the size given; the manifest has none to compare with, so it has a limit."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe must not block before it is refused
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path.name} is no plain file")
        if size is not None and status.st_size != size:
            raise CheckpointError(f"{path.name} has {status.st_size} bytes, the manifest says {size}")
        if size is None and status.st_size > _MANIFEST_LIMIT:
            raise CheckpointError(f"{path.name} has {status.st_size} bytes, expected at most {_MANIFEST_LIMIT}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def _parse_manifest(data: bytes) -> tuple[dict[str, tuple[int, str]], dict[str, dict[str, str]]]:
    """Size and hash by file, and the stored key by key and group."""
    manifest = _parse(_MANIFEST, data)
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(f"{_MANIFEST} has format {manifest.get('format')!r}, this modkit reads {_FORMAT}")
    if manifest.pop("sha256", None) != hash_sha256(_dump(manifest)):
        raise CheckpointError(f"{_MANIFEST} is damaged: it does not have the SHA-256 that it states")
    try:
        files = {str(file): (int(entry["size"]), str(entry["sha256"])) for file, entry in manifest["files"].items()}
        keys = {group: {key: str(stored) for key, stored in row.items()} for group, row in manifest["tensors"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{_MANIFEST} lacks a size, a hash or a key where one is expected") from error
    misnamed = [group for group in keys if not _NAME.fullmatch(group)]
    if misnamed or set(files) != {_STATE, *(f"{group}.safetensors" for group in keys)}:
        raise CheckpointError(f"{_MANIFEST} lists files {sorted(files)} for groups {sorted(keys)}")
    return files, keys


def _parse_tensors(file: str, data: bytes, keys: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        stored = safetensors.torch.load(data)
    except Exception as error:  # a forged header may provoke anything
        raise CheckpointError(f"{file} is no safetensors file: {error}") from error
    if set(stored) != set(keys.values()):
        odd = sorted(set(stored) ^ set(keys.values()))
        raise CheckpointError(f"{file} and the manifest differ in keys {odd[:5]}")
    return {key: stored[name] for key, name in keys.items()}


def _dump(value: object) -> bytes:
    return json.dumps(value, allow_nan=False, indent=1).encode()


def _parse(file: str, data: bytes) -> dict[str, Any]:
    """JSON in the one form in which we write it, so that no NaN, infinity or repeated key gets through."""
    try:
        value = json.loads(data)
        canonical = _dump(value) == data
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is no JSON of ours: {error}") from error
    if not canonical or not isinstance(value, dict):
        raise CheckpointError(f"{file} is not in the form in which it was written")
    return value


def _dump_state(state: dict[str, Any]) -> bytes:
    odd = _misfit(state, "state")
    if odd or not isinstance(state, dict):
        raise ValueError(f"Checkpoint expects a dict of JSON as its state, got {odd or type(state).__name__}")
    return _dump(state)


def _misfit(value: object, path: str) -> str | None:
    """The first value that JSON would refuse or change, and where it is."""
    if isinstance(value, dict):
        keys = (f"the key {key!r} in {path}" for key in value if type(key) is not str)
        return next(keys, None) or _first(_misfit(item, f"{path}.{key}") for key, item in value.items())
    if isinstance(value, list):
        return _first(_misfit(item, f"{path}[{index}]") for index, item in enumerate(value))
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return None
    return f"{type(value).__name__} {value!r} at {path}"


def _first(found: Iterable[str | None]) -> str | None:
    return next((item for item in found if item is not None), None)
