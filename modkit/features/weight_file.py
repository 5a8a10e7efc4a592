"""Files of weights, read without trusting them.

A file is read into memory once. Its SHA-256 is compared before anything interprets it, and exactly the bytes that were
hashed are parsed: as safetensors, or else in torch's format by the unpickler that creates nothing but tensors
(`weights_only=True`). The result is a flat dict of tensors on the CPU; errors are a `ValueError` that names the file.
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
from typing import Annotated, TypeAlias

import safetensors.torch
import torch
from torch import Tensor, nn

from modkit.runs.files import hash_data

__all__ = ["Sha256", "load_exactly", "import_optional", "read_bytes", "read_weights", "hash_tensors"]

Sha256: TypeAlias = Annotated[
    str | None, "SHA-256 of the file, compared before it is opened; None skips the comparison."
]

_LIMIT = 2**33
_SHA256 = re.compile(r"[0-9a-f]{64}")


def read_bytes(owner: str, path: Path, limit: int = _LIMIT) -> bytes:
    """Reads the content of a regular file.

    Raises:
        ValueError: If it cannot be opened, is not a regular file (a pipe, a device), or is larger than `limit`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:  # opening a pipe must not block
        raise ValueError(f"{owner} expects a readable file, got {path}: {error}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{owner} expects a regular file, got something else at {path}")
        if status.st_size > limit:
            raise ValueError(f"{owner} expects at most {limit} bytes, got {status.st_size} in {path}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    finally:
        os.close(descriptor)


def read_weights(owner: str, path: Path, *, sha256: str | None = None) -> dict[str, Tensor]:
    """Reads named tensors from a `.safetensors` file, or from torch's format under any other name.

    Args:
        owner: Name of the calling class, for messages.
        path: The file.
        sha256: Its SHA-256, 64 hexadecimal digits, compared before the file is interpreted; None skips the comparison.

    Raises:
        ValueError: If the file is missing, has another hash, is damaged, requires pickle, or contains anything but
            named tensors.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> _ = path.write_bytes(safetensors.torch.save({"w": torch.ones(2)}))
        >>> read_weights("Owner", path)
        {'w': tensor([1., 1.])}
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256.lower()):
        raise ValueError(f"{owner} expects sha256 as 64 hexadecimal digits, got {sha256!r}")
    data = read_bytes(owner, path)
    found = hash_data(data)
    if sha256 is not None and found != sha256.lower():
        raise ValueError(f"{owner} expects {path} to have SHA-256 {sha256.lower()}, got {found}")
    try:
        loaded = _parse(data, path.suffix == ".safetensors")
    except Exception as error:  # a forged file may cause any error
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
    """Loads weights whose keys and shapes must match the module's; on the meta device they are only compared.

    Raises:
        ValueError: If keys or shapes differ; the message names the first.
    """
    wanted = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in tensors.items()}
    counters = {key for key in wanted if key.endswith(".num_batches_tracked")}  # older files lack them
    odd = sorted(key for key in wanted.keys() | given.keys() if wanted.get(key) != given.get(key))
    odd = [key for key in odd if key in given or key not in counters]
    if odd:
        rows = "; ".join(f"{key}: expected {wanted.get(key)}, got {given.get(key)}" for key in odd[:3])
        raise ValueError(f"{owner} expects the weights of its network in {source}; {len(odd)} differ: {rows}")
    if not any(value.is_meta for value in module.state_dict().values()):  # meta tensors have only shapes
        module.load_state_dict(tensors)


def hash_tensors(tensors: Mapping[str, Tensor], *pieces: object) -> str:
    """Hashes named tensors, in any order, by SHA-256: names, types, shapes, bits, and any further pieces."""
    digest = hashlib.sha256(repr(pieces).encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def import_optional(owner: str, module: str, install: str) -> ModuleType:
    """Imports a module of an optional dependency.

    Raises:
        ValueError: If it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{owner} expects {module.partition('.')[0]}: pip install {install} ({error})") from error


def _parse(data: bytes, safe: bool) -> object:
    with torch.device("cpu"):  # on whichever device a network is built
        if safe:
            return safetensors.torch.load(data)
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _is_named_tensor(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided
