"""The files of a checkpoint as bytes: tensors in safetensors, the state in JSON, and a manifest that vouches for both.

    GROUP.safetensors    the distinct tensors of a group, each under the first of its keys
    state.json           everything that is not a tensor
    manifest.json        size and SHA-256 of each file, the stored key of each key, and its own SHA-256

Nothing is pickled: untrusted bytes give tensors and JSON, or a `CheckpointError`. Equal contents give equal bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from modkit.runs.files import hash_data

__all__ = [
    "MANIFEST", "STATE", "Checkpoint", "CheckpointError", "Manifest", "check_name", "encode", "parse_manifest",
    "parse_state", "parse_tensors",
]  # fmt: skip

MANIFEST = "manifest.json"
STATE = "state.json"

_FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
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


def check_name(what: str, name: str) -> None:
    """Checks that a name of a checkpoint or a group can be a file name.

    Raises:
        ValueError: If it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"Checkpoint expects {what} of letters, digits, '.', '_' and '-' that does not start with '.', got {name!r}"
        )


def encode(checkpoint: Checkpoint) -> tuple[dict[str, bytes], bytes]:
    """Encodes the files of a checkpoint, by name, and its manifest.

    Raises:
        ValueError: If a name is not plain, a value is not a dense tensor, or the state is not plain JSON.
    """
    files, keys = {}, {}
    for group, tensors in checkpoint.tensors.items():
        check_name("a group's name", group)
        stored, keys[group] = _deduplicate(group, tensors)
        files[f"{group}.safetensors"] = safetensors.torch.save(stored)
    files[STATE] = _dump_state(checkpoint.state)
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


class Manifest(NamedTuple):
    """What a checkpoint consists of: size and SHA-256 by file, and the stored key by group and key."""

    files: dict[str, tuple[int, str]]
    keys: dict[str, dict[str, str]]


def parse_manifest(data: bytes) -> Manifest:
    """Parses a manifest.

    Raises:
        CheckpointError: If it is damaged or of another format.
    """
    manifest = _parse(MANIFEST, data)
    if manifest.get("format") != _FORMAT:
        raise CheckpointError(
            f"{MANIFEST} has format {manifest.get('format')!r}, but this version of modkit reads format {_FORMAT}"
        )
    if manifest.pop("sha256", None) != hash_data(_dump(manifest)):
        raise CheckpointError(f"{MANIFEST} is damaged: its content does not match its SHA-256")
    try:
        files = {str(file): (int(entry["size"]), str(entry["sha256"])) for file, entry in manifest["files"].items()}
        keys = {group: {key: str(stored) for key, stored in row.items()} for group, row in manifest["tensors"].items()}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{MANIFEST} lacks a size, a hash or a key") from error
    misnamed = [group for group in keys if not _NAME.fullmatch(group)]
    if misnamed or set(files) != {STATE, *(f"{group}.safetensors" for group in keys)}:
        raise CheckpointError(f"{MANIFEST} lists files {sorted(files)} for groups {sorted(keys)}")
    return Manifest(files, keys)


def parse_state(data: bytes) -> dict[str, Any]:
    """Parses a state.

    Raises:
        CheckpointError: If it is not JSON as `encode` writes it.
    """
    return _parse(STATE, data)


def parse_tensors(file: str, data: bytes, keys: Mapping[str, str]) -> dict[str, Tensor]:
    """Parses the tensors of a group, `keys` being its stored keys.

    Raises:
        CheckpointError: If they are not a safetensors file with these keys.
    """
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
