"""Reads a stranger's checkpoint: torch's files of both kinds, a plain pickle, or safetensors. No code in it runs.

    zip        NAME/data.pkl, NAME/data/KEY a storage, NAME/byteorder          torch.save since 1.6
    legacy     magic, protocol, system, object, keys: five pickles; then a length and the bytes of each storage
    pickle     of whatever, with storages as legacy files in it                 pickle.dump of a module
    safetensors

What comes back are nested dicts, lists and tuples of tensors, arrays, numbers and strings, with a
`placeholder.Placeholder` for whatever else the file names. Tensors are on the CPU.
"""

from __future__ import annotations

import mmap
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modkit_checkpoints.pickled_machine import unpickle
from modkit_checkpoints.pickled_stream import Bytes, Stream
from modkit_checkpoints.pickled_values import Storage, StorageType, builders

__all__ = ["read"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MOST_PICKLE = 2**30
_MOST_NESTED = 1
_ZIP = b"PK\x03\x04"


def read(path: str | os.PathLike[str]) -> Any:
    """What a file holds.

    Raises:
        ValueError: If it is damaged, of no known kind, or too large to be honest; names the file, what was expected and
            what was found.
        OSError: If it cannot be opened.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError(f"{path}: expected a checkpoint, got an empty file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _read_safetensors(path) if _is_safetensors(data) else _read(data, 0)
            except (
                ValueError,
                zipfile.BadZipFile,
                EOFError,
                NotImplementedError,
                RecursionError,
                MemoryError,
            ) as error:
                raise ValueError(f"{path}: {error}") from error


def _is_safetensors(data: Bytes) -> bool:
    size = int.from_bytes(data[:8], "little")
    return data[8:9] == b"{" and 8 + size <= len(data)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"damaged safetensors: {error}") from error
    return tensors


def _read(data: Any, depth: int) -> Any:
    """What a file of torch or a pickle holds; `depth` files stand around it."""

    def nested(content: Any) -> Any:
        if not isinstance(content, bytes | bytearray) or depth >= _MOST_NESTED:
            raise ValueError(f"expected a file's bytes in at most {_MOST_NESTED} other, got {type(content).__name__}")
        return _read(bytes(content), depth + 1)

    names = builders(nested)
    if data[:4] == _ZIP:
        return _Zip(data, names).read()
    if data[:1] not in _STARTS:
        raise ValueError(f"expected a zip file, a pickle or safetensors, got a file that begins with {data[:8]!r}")
    stream = Stream(data)
    legacy = _Legacy(stream, names)
    first = unpickle(stream, names)
    if type(first) is int and first == _MAGIC:
        return legacy.read()
    if stream.left:
        raise ValueError(f"expected the end of the file after a pickle, got {stream.left} more bytes")
    return first


_STARTS = tuple(bytes((code,)) for code in b"\x80(]}cNIJKMLFGSUVX)")
"""What pickles begin with: the protocol from 2 on, before it an opcode that makes a value."""


class _Legacy:
    """torch's files before 1.6, and the storages that a pickle writes: storages follow the pickle that names them."""

    def __init__(self, stream: Stream, names: Mapping[str, Any]) -> None:
        self.stream, self.names = stream, names
        self.storages: dict[str, Storage] = {}
        self.reserved = 0

    def read(self) -> Any:
        protocol = unpickle(self.stream, self.names)
        if protocol != _PROTOCOL:
            raise ValueError(f"expected torch's protocol {_PROTOCOL}, got {protocol!r:.40}")
        unpickle(self.stream, self.names)  # the system it was written on: the bytes are little-endian on any
        value = unpickle(self.stream, self.names, self.storage)
        keys = unpickle(self.stream, self.names)
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(self.storages):
            raise ValueError(f"expected the storages {sorted(self.storages)[:5]} to follow, got {keys!r:.100}")
        for key in keys:
            self._fill(key, self.storages[str(key)])
        if self.stream.left:
            raise ValueError(f"expected the end of the file after its storages, got {self.stream.left} more bytes")
        return value

    def storage(self, identity: Any) -> Any:
        """What a persistent id stands for: a storage, whose bytes are read later."""
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]  # a class with its source, which nobody reads
        kind, key, num = _storage_id(identity[:5] if isinstance(identity, tuple) else identity)
        view = identity[5] if len(identity) > 5 else None
        if key not in self.storages:
            size = num * kind.size
            self.reserved += size
            if self.reserved > self.stream.left:
                raise ValueError(f"truncated: expected {self.reserved} bytes of storages, got {self.stream.left}")
            self.storages[key] = Storage(torch.zeros(size, dtype=torch.uint8), kind.dtype)
        found = self.storages[key]
        return found if view is None else _view(found, view)

    def _fill(self, key: str, storage: Storage) -> None:
        num = self.stream.number("<q")
        size = storage.dtype.itemsize if storage.dtype else 1
        if num * size != len(storage.data):
            raise ValueError(f"expected {len(storage.data) // size} values in storage {key!r:.40}, got {num}")
        if num:
            content = bytearray(self.stream.take(num * size))
            storage.data.copy_(torch.frombuffer(content, dtype=torch.uint8))


class _Zip:
    """torch's files since 1.6: each storage is an entry, stored as it is."""

    def __init__(self, data: Any, names: Mapping[str, Any]) -> None:
        self.names = names
        self.archive = zipfile.ZipFile(_File(data))
        entries = self.archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries) > len(data):
            raise ValueError(f"expected entries stored as they are, got more bytes than the file has, or {packed[:3]}")
        self.entries = {entry.filename: entry for entry in entries}
        pickles = [name for name in self.entries if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(self.entries) != len(entries):
            raise ValueError(f"expected a file of torch with one data.pkl, got entries {list(self.entries)[:5]}")
        self.root = pickles[0].removesuffix("data.pkl")
        if f"{self.root}constants.pkl" in self.entries:
            raise ValueError("expected a checkpoint, got a TorchScript program")
        order = self._content("byteorder") if f"{self.root}byteorder" in self.entries else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"expected byteorder little or big, got {order!r:.20}")
        self.swapped = order == b"big"
        self.storages: dict[str, Storage] = {}

    def read(self) -> Any:
        content = self._content("data.pkl")
        if len(content) > _MOST_PICKLE:
            raise ValueError(f"expected a data.pkl of at most {_MOST_PICKLE} bytes, got {len(content)}")
        stream = Stream(content)
        value = unpickle(stream, self.names, self.storage)
        if stream.left:
            raise ValueError(f"expected the end of data.pkl after its pickle, got {stream.left} more bytes")
        return value

    def storage(self, identity: Any) -> Storage:
        """What a persistent id stands for."""
        kind, key, num = _storage_id(identity)
        if key not in self.storages:
            self.storages[key] = Storage(self._bytes(kind, key, num), kind.dtype)
        found = self.storages[key]
        if len(found.data) != num * kind.size:
            raise ValueError(f"expected {num} values of {kind.dtype} in storage {key!r:.40}, got another size before")
        return Storage(found.data, kind.dtype)

    def _bytes(self, kind: StorageType, key: str, num: int) -> Tensor:
        name = f"{self.root}data/{key}"
        if name not in self.entries:
            raise ValueError(f"expected a storage {name!r:.60}, got none")
        if self.entries[name].file_size != num * kind.size:
            size = self.entries[name].file_size
            raise ValueError(f"expected {num} values of {kind.dtype} in {name!r:.60}, got {size} bytes")
        if not num:
            return torch.empty(0, dtype=torch.uint8)
        values = np.frombuffer(bytearray(self._content(f"data/{key}")), np.uint8)
        if self.swapped:
            unit = kind.size // 2 if kind.dtype and kind.dtype.is_complex else kind.size
            values = values.reshape(-1, unit)[:, ::-1].reshape(-1)
        return torch.from_numpy(np.ascontiguousarray(values))

    def _content(self, name: str) -> bytes:
        try:
            return self.archive.read(self.entries[f"{self.root}{name}"])
        except (RuntimeError, OSError) as error:  # an entry that is encrypted, or lies elsewhere
            raise ValueError(f"damaged zip file at {name!r:.60}: {error}") from error


class _File:
    """Bytes at hand as a file to read from."""

    def __init__(self, data: Bytes) -> None:
        self._data, self._place = data, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: len(self._data)}[whence]
        if start + offset < 0:
            raise ValueError(f"damaged zip file: expected a place in it, got {start + offset}")
        self._place = start + offset
        return self._place

    def read(self, num: int = -1) -> bytes:
        end = len(self._data) if num < 0 else min(self._place + num, len(self._data))
        found = self._data[self._place : end]
        self._place = max(self._place, end)
        return found


def _storage_id(identity: Any) -> tuple[StorageType, str, int]:
    """The type, key and number of values that a persistent id tells."""
    if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
        raise ValueError(f"expected the persistent id of a storage, got {type(identity).__name__}")
    _, kind, key, _, num = identity
    if (
        not isinstance(kind, StorageType)
        or not isinstance(key, str | int)
        or type(num) is not int
        or not 0 <= num < 2**48
    ):
        raise ValueError(f"expected a storage's type, key and size, got {kind!r:.40}, {key!r:.40} and {num!r:.20}")
    return kind, str(key), num


def _view(storage: Storage, view: Any) -> Storage:
    """A part of a storage that stood for a storage itself: (key, offset, number of values)."""
    unit = storage.dtype.itemsize if storage.dtype else 1
    fits = isinstance(view, tuple) and len(view) == 3 and type(view[1]) is int and type(view[2]) is int
    if not fits or not 0 <= view[1] <= view[1] + view[2] <= len(storage.data) // unit:
        raise ValueError(f"expected a view of {len(storage.data) // unit} values, got {view!r:.60}")
    return Storage(storage.data[view[1] * unit : (view[1] + view[2]) * unit], storage.dtype)
