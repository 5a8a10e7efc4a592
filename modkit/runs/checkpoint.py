"""Checkpoints: named tensors and a JSON state in a folder that is complete or absent, even if its writer is killed.

    directory/step-00001500/
        model.safetensors, ema.safetensors, …    one file per group of tensors
        state.json                               everything that is not a tensor
        manifest.json                            size and SHA-256 of each file, and its own SHA-256; written last

A checkpoint is written to `.step-00001500.tmp-PID`; its files and the folder are synced to the disk, then the folder is
renamed. An existing checkpoint of the same name is first renamed to `.step-00001500.old`, where readers find it until
the new one is in place. Nothing is pickled: reading an untrusted file gives tensors and JSON, or a `CheckpointError`.

Only one process may write to a directory at a time; any number may read it.
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

from modkit.runs.files import hash_data, sync_folder, write_file

__all__ = [
    "Checkpoint", "CheckpointError", "find_latest", "list_names", "load", "prune", "read", "recover", "rewind", "save",
    "write",
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
    """A checkpoint is damaged, missing or of an unknown format."""


@dataclass
class Checkpoint:
    """The content of a checkpoint.

    Args:
        tensors: Named tensors by group ("model", "ema", "optimizer", …). A tensor with several names in a group is
            stored once and loaded as one tensor.
        state: Everything else, as plain JSON: finite numbers, strings, booleans, None, lists, and dicts with strings as
            keys.
    """

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)


def save(directory: Path, name: str, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint. It may replace one of the same name; at any time one of the two is complete.

    Args:
        directory: The folder of checkpoints; created if absent.
        name: Name of the new checkpoint, such as `step-00001500`.
        checkpoint: Its content. Tensors are copied to the CPU; neither they nor their gradients change.

    Returns:
        `directory / name`.

    Raises:
        ValueError: If a name is not plain, a value is not a dense tensor, or the state is not plain JSON.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save(Path(folder), "step-1", Checkpoint({"model": {"w": torch.ones(2)}}, {"step": 1}))
        ...     load(path)
        Checkpoint(tensors={'model': {'w': tensor([1., 1.])}}, state={'step': 1})
    """
    _check_name("a name", name)
    files, manifest = _encode(checkpoint)
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
    """Writes a checkpoint into an existing folder, not atomically: a kill may leave it incomplete.

    Raises:
        ValueError: As `save`.
    """
    _write(folder, *_encode(checkpoint))


def load(path: Path) -> Checkpoint:
    """Loads and verifies the checkpoint at `path`, with its tensors on the CPU.

    Raises:
        CheckpointError: If it is missing, damaged or of another format; the message names the file, the fault and
            the last earlier checkpoint that is intact.
    """
    try:
        return read(path)
    except CheckpointError as error:
        before = [name for name in list_names(path.parent) if _make_sort_key(name) < _make_sort_key(path.name)]
        whole = _find_intact(path.parent, before)
        offer = f"the last intact one before it is {whole}" if whole else "there is no intact one before it"
        raise CheckpointError(f"checkpoint {path}: {error}; {offer}") from error


def read(path: Path) -> Checkpoint:
    """Reads and verifies a checkpoint like `load`, without looking for earlier ones.

    Raises:
        CheckpointError: If it is missing, damaged or of another format; the message names the file and the fault.
    """
    folder = _find_folder(path)
    if not folder.is_dir():
        raise CheckpointError("the folder does not exist")
    files, keys = _parse_manifest(_read_file(folder / _MANIFEST, None))
    tensors = {}
    for group, row in keys.items():
        file = f"{group}.safetensors"
        tensors[group] = _parse_tensors(file, _read_verified(folder / file, *files[file]), row)
    return Checkpoint(tensors, _parse(_STATE, _read_verified(folder / _STATE, *files[_STATE])))


def list_names(directory: Path) -> list[str]:
    """Lists the names of the checkpoints that have a manifest; numbers in names are sorted by value."""
    if not directory.is_dir():
        return []
    found = {entry.name for entry in directory.iterdir() if _NAME.fullmatch(entry.name)}
    found |= {left[1] for entry in directory.iterdir() if (left := _LEFT.fullmatch(entry.name)) and left[2]}
    return sorted(
        (name for name in found if (_find_folder(directory / name) / _MANIFEST).is_file()), key=_make_sort_key
    )


def find_latest(directory: Path) -> Path | None:
    """Finds the last checkpoint that can be verified; None if there is none."""
    return _find_intact(directory, list_names(directory))


def prune(directory: Path, keep: int, spare: Collection[str] = ()) -> None:
    """Removes all checkpoints except the last `keep` and those named in `spare`.

    Raises:
        ValueError: If `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"prune expects to keep at least 1 checkpoint, got keep={keep}")
    for name in list_names(directory)[:-keep]:
        if name not in spare:
            _remove(_find_folder(directory / name))


def rewind(directory: Path, path: Path | None) -> list[str]:
    """Removes the checkpoints after `path`, or all, so that a resumed run can write them again.

    Returns:
        The names of the removed checkpoints.
    """
    after = [name for name in list_names(directory) if path is None or _make_sort_key(name) > _make_sort_key(path.name)]
    for name in after:
        _remove(_find_folder(directory / name))
    return after


def recover(directory: Path) -> None:
    """Cleans up after a killed writer; to be called by the process that will write next."""
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


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"Checkpoint expects {what} of letters, digits, '.', '_' and '-' that does not start with '.', got {name!r}"
        )


def _write(folder: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    for file, data in files.items():
        write_file(folder / file, data)
    write_file(folder / _MANIFEST, manifest)
    sync_folder(folder)


def _install(temporary: Path, path: Path) -> None:
    aside = _get_aside(path)
    if path.exists():
        os.replace(path, aside)
    os.replace(temporary, path)
    sync_folder(path.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _remove(folder: Path) -> None:
    """Removes a checkpoint; it is renamed first, so that readers never see a part of it."""
    hidden = folder.with_name(f".{folder.name.strip('.')}.tmp-{os.getpid()}")
    os.replace(folder, hidden)
    shutil.rmtree(hidden)


def _get_aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _find_folder(path: Path) -> Path:
    """Finds the folder that now holds the checkpoint `path`: a writer killed while replacing it left it aside."""
    return path if path.exists() or not _get_aside(path).exists() else _get_aside(path)


def _make_sort_key(name: str) -> list[tuple[int, int, str]]:
    return [(1, int(piece), piece) if piece.isdecimal() else (0, 0, piece) for piece in re.split(r"([0-9]+)", name)]


def _find_intact(directory: Path, candidates: list[str]) -> Path | None:
    for name in reversed(candidates):
        try:
            read(directory / name)
        except CheckpointError:
            continue
        return directory / name
    return None


def _encode(checkpoint: Checkpoint) -> tuple[dict[str, bytes], bytes]:
    """Encodes the files of a checkpoint, by name, and its manifest."""
    files, keys = {}, {}
    for group, tensors in checkpoint.tensors.items():
        _check_name("a group's name", group)
        stored, keys[group] = _deduplicate(group, tensors)
        files[f"{group}.safetensors"] = safetensors.torch.save(stored)
    files[_STATE] = _dump_state(checkpoint.state)
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "files": {file: {"size": len(data), "sha256": hash_data(data)} for file, data in files.items()},
        "tensors": keys,
    }
    manifest["sha256"] = hash_data(_dump(manifest))
    return files, _dump(manifest)


def _deduplicate(group: str, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns CPU copies of the distinct tensors, and for each key the key under which its tensor is stored."""
    plain: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta or value.is_quantized:
            raise ValueError(f"Checkpoint expects dense tensors with values, got {_describe(value)} at {group}/{key}")
        if key == "__metadata__" or value.dtype not in _DTYPES:
            raise ValueError(f"Checkpoint cannot store a tensor of {value.dtype} named {key!r} (group {group})")
        plain[key] = value.detach().resolve_conj().resolve_neg()
    first: dict[object, str] = {}
    keys: dict[str, str] = {}
    for key, value in plain.items():
        keys[key] = first.setdefault(_identify(value) if value.numel() else key, key)
    return {key: _copy(plain[key]) for key in dict.fromkeys(keys.values())}, keys


def _copy(value: Tensor) -> Tensor:
    return torch.empty(value.shape, dtype=value.dtype).copy_(value)  # contiguous, with a storage of its own


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"a tensor of {value.layout} on {value.device}"


def _identify(value: Tensor) -> object:
    start = value.untyped_storage().data_ptr()
    return value.device, start, value.storage_offset(), value.shape, value.stride(), value.dtype


def _read_verified(path: Path, size: int, sha256: str) -> bytes:
    data = _read_file(path, size)
    if hash_data(data) != sha256:
        raise CheckpointError(
            f"{path.name} is damaged: its SHA-256 is {hash_data(data)}, but the manifest expects {sha256}"
        )
    return data


def _read_file(path: Path, size: int | None) -> bytes:
    """Reads a regular file of the given size; the manifest's size is not recorded, so it is limited instead."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe must not block
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path.name} is not a regular file")
        if size is not None and status.st_size != size:
            raise CheckpointError(f"{path.name} has {status.st_size} bytes, but the manifest expects {size}")
        if size is None and status.st_size > _MANIFEST_LIMIT:
            raise CheckpointError(f"{path.name} has {status.st_size} bytes, expected at most {_MANIFEST_LIMIT}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def _parse_manifest(data: bytes) -> tuple[dict[str, tuple[int, str]], dict[str, dict[str, str]]]:
    """Parses the manifest: size and hash by file, and the stored key by group and key."""
    manifest = _parse(_MANIFEST, data)
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{_MANIFEST} has format {manifest.get('format')!r}, but this version of modkit reads format {_FORMAT}"
        )
    if manifest.pop("sha256", None) != hash_data(_dump(manifest)):
        raise CheckpointError(f"{_MANIFEST} is damaged: its content does not match its SHA-256")
    try:
        files = {str(file): (int(entry["size"]), str(entry["sha256"])) for file, entry in manifest["files"].items()}
        keys = {group: {key: str(stored) for key, stored in row.items()} for group, row in manifest["tensors"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{_MANIFEST} lacks a size, a hash or a key") from error
    misnamed = [group for group in keys if not _NAME.fullmatch(group)]
    if misnamed or set(files) != {_STATE, *(f"{group}.safetensors" for group in keys)}:
        raise CheckpointError(f"{_MANIFEST} lists files {sorted(files)} for groups {sorted(keys)}")
    return files, keys


def _parse_tensors(file: str, data: bytes, keys: Mapping[str, str]) -> dict[str, Tensor]:
    try:
        stored = safetensors.torch.load(data)
    except Exception as error:  # a forged header may raise anything
        raise CheckpointError(f"{file} is not a safetensors file: {error}") from error
    if set(stored) != set(keys.values()):
        odd = sorted(set(stored) ^ set(keys.values()))
        raise CheckpointError(f"{file} and the manifest differ in the keys {odd[:5]}")
    return {key: stored[name] for key, name in keys.items()}


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


def _dump_state(state: dict[str, Any]) -> bytes:
    odd = _find_misfit(state, "state")
    if odd or not isinstance(state, dict):
        raise ValueError(f"Checkpoint expects a dict of JSON as its state, got {odd or type(state).__name__}")
    return _dump(state)


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
