"""Files of weights, read without trusting them.

A file is read once into memory; its SHA-256 is compared before anything interprets it, and the bytes that were hashed
are those that are parsed: safetensors, or else torch's format through the unpickler that makes nothing but tensors
(`weights_only=True`). What comes back is a flat dict of tensors on the CPU, or a `ValueError` names the file.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import safetensors.torch
import torch
from torch import Tensor, nn

__all__ = ["load_exactly", "import_optional", "read_bytes", "read_weights", "hash_tensors"]

_LIMIT = 2**33
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_bytes(owner: str, path: Path, limit: int = _LIMIT) -> bytes:
    """The content of a plain file.

    Raises:
        ValueError: If it cannot be opened, is no plain file (a pipe, a device) or is larger than `limit`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # a pipe must not block before it is refused
        raise ValueError(f"{owner} expects a file that it can read, got {path}: {error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{owner} expects a plain file, got something else at {path}")
        if status.st_size > limit:
            raise ValueError(f"{owner} expects at most {limit} bytes, got {status.st_size} in {path}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def read_weights(owner: str, path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Named tensors of a `.safetensors` file, or of torch's format under any other name.

    Args:
        owner: Name of the class that asks, for messages.
        path: The file.
        sha256: Its SHA-256, 64 hexadecimal digits, compared before the file is interpreted; None: not compared.

    Raises:
        ValueError: If the file is missing, has another hash, is damaged, needs pickle, or holds anything but named
            tensors.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256.lower()):
        raise ValueError(f"{owner} expects sha256 as 64 hexadecimal digits, got {sha256!r}")
    data = read_bytes(owner, path)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256.lower():
        raise ValueError(f"{owner} expects {path} to have SHA-256 {sha256.lower()}, got {found}")
    try:
        loaded = _parse(data, path.suffix == ".safetensors")
    except Exception as error:  # a forged file may provoke anything
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"{owner} expects weights in {path} (safetensors, or torch's without pickle): {reason}"
        ) from error
    if not isinstance(loaded, Mapping) or not loaded:
        raise ValueError(f"{owner} expects named tensors in {path}, got {type(loaded).__name__}")
    odd = next((key for key, value in loaded.items() if not _is_named_tensor(key, value)), None)
    if odd is not None:
        raise ValueError(f"{owner} expects named dense tensors in {path}, got {type(loaded[odd]).__name__} at {odd!r}")
    return dict(loaded)


def load_exactly(owner: str, module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Loads weights that must match the module key by key; a module on the meta device is only compared.

    Raises:
        ValueError: If keys or shapes differ, naming the first ones.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    counters = {key for key in wanted if key.endswith(".num_batches_tracked")}  # older files lack them; unused in eval
    odd = sorted(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key))
    odd = [key for key in odd if key in given or key not in counters]
    if odd:
        rows = "; ".join(f"{key}: expected {wanted.get(key)}, got {given.get(key)}" for key in odd[:3])
        raise ValueError(f"{owner} expects the weights of its network in {source}; {len(odd)} differ: {rows}")
    if not any(value.is_meta for value in module.state_dict().values()):  # where shapes are all there is
        module.load_state_dict(tensors)


def hash_tensors(tensors: Mapping[str, Tensor], *pieces: object) -> str:
    """SHA-256 of named tensors (names, types, shapes, bits) and of what else matters; order does not."""
    digest = hashlib.sha256(repr(pieces).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def import_optional(owner: str, module: str, install: str) -> ModuleType:
    """A module of an optional dependency, imported when it is needed.

    Raises:
        ValueError: If it is not installed, naming what installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{owner} expects {module.partition('.')[0]}: pip install {install} ({error})") from error


def _parse(data: bytes, safe: bool) -> object:
    with torch.device("cpu"):  # whatever device a network is being built on
        if safe:
            return safetensors.torch.load(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _is_named_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided
