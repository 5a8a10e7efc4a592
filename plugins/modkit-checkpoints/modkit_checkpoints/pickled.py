"""Reads an untrusted checkpoint: torch's files of both kinds, plain pickles, or safetensors. No code in it is run.

    zip        NAME/data.pkl, NAME/data/KEY a storage, NAME/byteorder          torch.save since 1.6
    legacy     five pickles (magic, protocol, system, object, keys); then a length and the bytes of each storage
    pickle     of any object, with storages as legacy files in it               pickle.dump of a module
    safetensors

`read` returns nested dicts, lists and tuples of tensors, arrays, numbers and strings, with a
`placeholder.Placeholder` for anything else that the file names. Tensors are on the CPU.
"""

from __future__ import annotations

import io
import mmap
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from modkit.runs.files import open_regular
from modkit_checkpoints.rebuilding import BUILDERS, Budget, StorageType, rebuild
from modkit_checkpoints.unpickler import PERSISTENT, unpickle

__all__ = ["read"]

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_MOST_PICKLE = 2**30
_MOST_NESTED = 1
_COPIES = 8  # of the bytes of a pickle; honest files use each once or twice
_LEAST_COPIED = 2**20
_ZIP = b"PK\x03\x04"
_STARTS = tuple(bytes((code,)) for code in b"\x80(]}cNIJKMLFGSUVX)")
"""First bytes of pickles: the protocol from version 2 on, an opcode that makes a value before."""


class _Mapped(mmap.mmap):
    """A mapped file, as a file."""

    def seekable(self) -> bool:
        return True


def read(path: str | os.PathLike[str]) -> Any:
    """Reads a checkpoint file.

    Raises:
        ValueError: If it is damaged, no regular file, of no known kind, or exceeds a bound. The message names the
            file, what was expected and what was found.
        OSError: If it cannot be opened.
    """
    path = Path(path)
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise ValueError(f"{path}: expected a checkpoint, got an empty file")
        with _Mapped(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                if data[8:9] == b"{" and 8 + int.from_bytes(data[:8], "little") <= len(data):
                    return _read_safetensors(path)
                return _File(cast(BinaryIO, data), Budget(_LEAST_COPIED)).read()
            except (
                ValueError,
                zipfile.BadZipFile,
                EOFError,
                NotImplementedError,
                RecursionError,
                MemoryError,
            ) as error:
                raise ValueError(f"{path}: {error}") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"damaged safetensors: {error}") from error
    return tensors


class _File:
    """A file of torch or a pickle, inside `depth` other files, which share its budget of copies."""

    def __init__(self, data: BinaryIO, budget: Budget, depth: int = 0) -> None:
        self.data, self.budget, self.depth = data, budget, depth
        data.seek(0, os.SEEK_END)
        self.size = data.tell()
        data.seek(0)

    @property
    def left(self) -> int:
        """The number of bytes that have not been read."""
        return self.size - self.data.tell()

    def read(self) -> Any:
        """Reads a file of any kind."""
        start = self.data.read(8)
        self.data.seek(0)
        if start[:4] == _ZIP:
            return _Zip(self).read()
        if start[:1] not in _STARTS:
            raise ValueError(f"expected a zip file, a pickle or safetensors, got a file that begins with {start!r}")
        first = self.load()
        if type(first) is int and first == _MAGIC:
            return _Legacy(self).read()
        self.check_end("the file after a pickle")
        return first

    def load(self, storage: Callable[[Any], Tensor] | None = None) -> Any:
        """Reads the next pickle; `storage` returns the storage of a persistent id."""
        start = self.data.tell()
        record = unpickle(self.data, self.size)
        self.budget.left += _COPIES * (self.data.tell() - start)
        builders = {"torch.storage._load_from_bytes": self._read_nested, PERSISTENT: storage or _refuse_storage}
        return rebuild(record, {**BUILDERS, **builders}, self.budget)

    def check_end(self, what: str) -> None:
        """Refuses further bytes."""
        if self.left:
            raise ValueError(f"expected the end of {what}, got {self.left} more bytes")

    def _read_nested(self, content: Any) -> Tensor:
        """Reads the storage in a file of torch that is inside a pickle."""
        if not isinstance(content, bytes | bytearray) or self.depth >= _MOST_NESTED:
            raise ValueError(f"expected a file's bytes in at most {_MOST_NESTED} other, got {type(content).__name__}")
        found = _File(io.BytesIO(content), self.budget, self.depth + 1).read()
        if not isinstance(found, Tensor):
            raise ValueError(f"expected a file of a storage, got {type(found).__name__}")
        return found


def _refuse_storage(identity: Any) -> Tensor:
    raise ValueError("got a persistent id outside a file of torch")


class _Legacy:
    """torch's files before 1.6, and storages in a pickle: storages follow the pickle that refers to them."""

    def __init__(self, file: _File) -> None:
        self.file = file
        self.storages: dict[str, Tensor] = {}
        self.reserved = 0

    def read(self) -> Any:
        protocol = self.file.load()
        if protocol != _PROTOCOL:
            raise ValueError(f"expected torch's protocol {_PROTOCOL}, got {protocol!r:.40}")
        self.file.load()  # about the system it was written on; the bytes are little-endian on all
        value = self.file.load(self.find_storage)
        keys = self.file.load()
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(self.storages):
            raise ValueError(f"expected the storages {sorted(self.storages)[:5]} to follow, got {keys!r:.100}")
        for key in keys:
            self._fill(key, self.storages[str(key)])
        self.file.check_end("the file after its storages")
        return value

    def find_storage(self, identity: Any) -> Tensor:
        """Returns the storage of a persistent id; its bytes are read later."""
        dtype, key, num = _parse_id(identity[:5] if isinstance(identity, tuple) else identity)
        if key not in self.storages:
            self.reserved += num * dtype.itemsize
            if self.reserved > self.file.left:
                raise ValueError(f"truncated: expected {self.reserved} bytes of storages, got {self.file.left}")
            self.storages[key] = torch.zeros(num, dtype=dtype)
        found, view = self.storages[key], identity[5] if len(identity) > 5 else None
        if view is None:
            return found
        match view:  # of a part: (key, offset, number of values)
            case (_, int() as first, int() as num) if 0 <= first <= first + num <= len(found):
                return found[first : first + num]
        raise ValueError(f"expected a view of {len(found)} values, got {view!r:.60}")

    def _fill(self, key: str, storage: Tensor) -> None:
        header = self.file.data.read(8)
        if len(header) < 8 or struct.unpack("<q", header) != (len(storage),):
            raise ValueError(f"expected {len(storage)} values in storage {key!r:.40}, got the length {header!r}")
        content = bytearray(self.file.data.read(storage.nbytes))
        if len(content) < storage.nbytes:
            raise ValueError(f"truncated: expected {storage.nbytes} bytes of storage {key!r:.40}, got {len(content)}")
        if content:
            storage.copy_(torch.frombuffer(content, dtype=storage.dtype))


class _Zip:
    """torch's files since 1.6: each storage is an uncompressed entry."""

    def __init__(self, file: _File) -> None:
        self.file = file
        self.archive = zipfile.ZipFile(file.data)
        entries = self.archive.infolist()
        packed = [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]
        if packed or sum(entry.file_size for entry in entries) > file.size:
            raise ValueError(f"expected entries stored as they are, got more bytes than the file has, or {packed[:3]}")
        self.sizes = {entry.filename: entry.file_size for entry in entries}
        pickles = [name for name in self.sizes if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(pickles) != 1 or len(self.sizes) != len(entries):
            raise ValueError(f"expected a file of torch with one data.pkl, got entries {list(self.sizes)[:5]}")
        self.root = pickles[0].removesuffix("data.pkl")
        if f"{self.root}constants.pkl" in self.sizes:
            raise ValueError("expected a checkpoint, got a TorchScript program")
        order = self._read_content("byteorder") if f"{self.root}byteorder" in self.sizes else b"little"
        if order not in (b"little", b"big"):
            raise ValueError(f"expected byteorder little or big, got {order!r:.20}")
        self.swapped = order == b"big"
        self.storages: dict[str, Tensor] = {}

    def read(self) -> Any:
        size = self.sizes[f"{self.root}data.pkl"]
        if size > _MOST_PICKLE:
            raise ValueError(f"expected a data.pkl of at most {_MOST_PICKLE} bytes, got {size}")
        pickle = _File(io.BytesIO(self._read_content("data.pkl")), self.file.budget, self.file.depth)
        value = pickle.load(self.find_storage)
        pickle.check_end("data.pkl after its pickle")
        return value

    def find_storage(self, identity: Any) -> Tensor:
        """Returns the storage of a persistent id."""
        dtype, key, num = _parse_id(identity)
        name = f"{self.root}data/{key}"
        if name not in self.sizes:
            raise ValueError(f"expected a storage {name!r:.60}, got none")
        if self.sizes[name] != num * dtype.itemsize:
            raise ValueError(f"expected {num} values of {dtype} in {name!r:.60}, got {self.sizes[name]} bytes")
        if key not in self.storages:
            content = bytearray(self._read_content(f"data/{key}"))
            self.storages[key] = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
            if self.swapped:
                storage: Any = self.storages[key].untyped_storage()
                storage.byteswap(dtype)
        return self.storages[key].view(dtype)

    def _read_content(self, name: str) -> bytes:
        try:
            return self.archive.read(f"{self.root}{name}")
        except (RuntimeError, OSError) as error:  # an encrypted entry, or one outside the file
            raise ValueError(f"damaged zip file at {name!r:.60}: {error}") from error


def _parse_id(identity: Any) -> tuple[torch.dtype, str, int]:
    """Returns the dtype, key and number of values in a persistent id."""
    match identity:
        case ("storage", StorageType(dtype), str() | int() as key, _, num) if type(num) is int and 0 <= num < 2**48:
            return dtype, str(key), num
        case ("storage", kind, key, _, num):
            raise ValueError(f"expected a storage's type, key and size, got {kind!r:.40}, {key!r:.40} and {num!r:.20}")
    raise ValueError(f"expected the persistent id of a storage, got {type(identity).__name__}")
