"""Shards: pictures in archives, read at random by an index of where each of them begins, which is made once.

    archives/ROOT.index      in the cache folder: the archives with their stamps; names, places and labels of members

Names, places and labels are stored in arrays, which forked workers share.

Shape letters: n pictures.
"""

from __future__ import annotations

import copy
import errno
import io
import json
import logging
import os
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from modkit.data.listing import Listing, split_pictures
from modkit.data.members import read_members
from modkit.data.names import Names
from modkit.data.split_names import choose_folders
from modkit.data.store import Stamp, read_stamp, show_place
from modkit.runs.cache import compute_once, find_cache_folder
from modkit.runs.files import hash_data, open_regular, replace_file

__all__ = ["Shards", "list_members", "open_shards"]

_FORMAT = 2  # 1 left out pictures with a dot in their name that are alone in their sample
_SETTLED = 3 * 10**9  # nanoseconds; as in `modkit.data.file_hashes`
_LARGE = 2**30  # bytes of archives from which on a notice says why nothing else happens
_COLUMNS = ("archive", "offset", "size", "length", "label")
_SUFFIXES = (b".zip", b".tar")

_logger = logging.getLogger(__name__)


class Shards:
    """The pictures in archives, a store.

    A picture's name is that of the member or, if there are several archives, the archive's path, `/` and the member's.

    Args:
        root: The archive, or the folder of the archives.
        archives: Their paths relative to the root, empty for the root itself.
        stamps: Their stamps.
        names: The pictures' names.
        table: Arrays `n` of the pictures' places: `archive`, its number; `offset`, `size` and `length`, in bytes, -1
            for what is not compressed; and of their classes, `label`.
    """

    def __init__(
        self,
        root: str,
        archives: Sequence[bytes],
        stamps: Sequence[Stamp],
        names: Names,
        table: Mapping[str, NDArray[np.int64]],
    ) -> None:
        self._root, self._archives, self._stamps = root, archives, stamps
        self._names, self._table, self._below = names, table, b""

    def __len__(self) -> int:
        return len(self._names)

    @property
    def single(self) -> bool:
        """Whether there is one archive, so that names are those of its members."""
        return self._archives == [b""]

    def list_names(self) -> list[bytes]:
        """Lists the pictures below the folder that was entered."""
        return [name.removeprefix(self._below) for name in self._names if name.startswith(self._below)]

    def enter(self, folder: bytes) -> Shards:
        """Returns the pictures below a folder, `train/`, by their names there."""
        inside = copy.copy(self)
        inside._below = self._below + folder
        return inside

    def find_labels(self, names: Sequence[bytes]) -> NDArray[np.int64]:
        """Finds the classes of pictures by their sorted names, `n`, `UNKNOWN` or `NONE` for those without."""
        return self._table["label"][self._names.find_all(self._below + name for name in names)]

    def locate(self, name: bytes) -> str:
        """The path of a picture, as if the archive were a folder."""
        return os.path.join(self._root, os.fsdecode(self._below + name)).rstrip("/")

    def read_stamp(self, name: bytes) -> Stamp:
        """The size of a picture and the time stamps of its archive, when this was listed."""
        row = self._find(name)
        _, *times = self._stamps[self._table["archive"][row]]
        return (int(self._table["size"][row]), *times)

    @contextmanager
    def open(self, name: bytes) -> Iterator[BinaryIO]:
        """Opens a picture; a damaged compression reads as an empty file.

        Raises:
            OSError: If there is no such picture, or its archive cannot be read.
            ValueError: If the archive has changed.
        """
        row = self._find(name)
        number, offset, size, length = (int(self._table[key][row]) for key in ("archive", "offset", "size", "length"))
        path = os.path.join(self._root, os.fsdecode(self._archives[number])).rstrip("/")
        with open_regular(path) as file:  # anew each time: no handle has to pass on to other processes
            if read_stamp(os.fstat(file.fileno()))[:2] != tuple(self._stamps[number][:2]):
                raise ValueError(f"{path!r} was changed after its pictures were listed: start again")
            file.seek(offset)
            data = file.read(size)
        yield io.BytesIO(data if length < 0 else _expand(data, length))

    def _find(self, name: bytes) -> int:
        try:
            return self._names.find(self._below + name)
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.locate(name)) from None


def open_shards(root: str, label: str) -> Shards:
    """Opens the pictures in an archive, or in the archives in a folder; their index is made once.

    Args:
        root: The archive, or the folder of the archives.
        label: Name of the class in a sample's `.json`.

    Raises:
        OSError: If an archive cannot be read.
        ValueError: If there is none, or one is damaged.
    """
    archives = _list_archives(root)
    paths = [os.path.join(root, os.fsdecode(name)).rstrip("/") for name in archives]
    stamps = [read_stamp(os.stat(path)) for path in paths]
    stated = [[os.fsdecode(name), *stamp] for name, stamp in zip(archives, stamps, strict=True)]
    description = json.dumps({"format": _FORMAT, "label": label, "archives": stated})
    place = find_cache_folder() / "archives" / f"{hash_data(f'{os.path.realpath(root)} {label}')[:32]}.index"

    def make() -> bytes:
        kept = place.read_bytes() if place.is_file() else b""
        if _unpack(kept, description):
            return kept
        if sum(size for size, *_ in stamps) > _LARGE:
            _logger.warning("%s: the pictures in %d archives are listed, which is done once", root, len(archives))
        index = _pack(description, *_make_index(archives, paths, label))
        if max(max(times) for _, *times in stamps) < time.time_ns() - _SETTLED:
            _write(place, index)
        return index

    found = _unpack(compute_once(f"listing the pictures in {os.path.realpath(root)!r} by {label}", make), description)
    return Shards(root, archives, stamps, *(found or _make_index(archives, paths, label)))


def list_members(shards: Shards, test: float) -> dict[str, Listing]:
    """Lists pictures by split: those in folders (`choose_folders`) or, if one is missing, found by hashes.

    Raises:
        ValueError: If folders or archives look like splits that cannot be told for certain.
    """
    names = shards.list_names()
    folders = {os.fsdecode(folder) for folder, slash, _ in (name.partition(b"/") for name in names) if slash}
    if chosen := choose_folders(folders, shards.locate(b"")):
        inside = {split: shards.enter(os.fsencode(f"{folder}/")) for split, folder in chosen.items()}
        return {split: Listing(store, store.list_names()) for split, store in inside.items()}
    return split_pictures(shards, names, test)


def _list_archives(root: str) -> list[bytes]:
    """Lists the paths of archives relative to the root; the root itself is an empty path."""
    if os.path.isfile(root):
        return [b""]
    found = []
    for folder, folders, names in os.walk(os.fsencode(root)):
        folders[:] = [name for name in folders if not name.startswith(b".")]
        paths = (os.path.join(folder, name) for name in names if not name.startswith(b"."))
        found += [os.path.relpath(path, os.fsencode(root)) for path in paths if path.lower().endswith(_SUFFIXES)]
    if not found:
        raise ValueError(f"Archive expects a .zip, a .tar or a folder of them, got {show_place(root)}")
    return sorted(found)


def _make_index(
    archives: Sequence[bytes], paths: Sequence[str], label: str
) -> tuple[Names, dict[str, NDArray[np.int64]]]:
    rows: list[tuple[bytes, int, int, int, int, int]] = []
    for number, (archive, path) in enumerate(zip(archives, paths, strict=True)):
        with open_regular(path) as file:
            above = archive + b"/" if archive else b""
            rows += [(above + one.name, number, *one[1:]) for one in read_members(file, path, label)]
    rows.sort()
    table = np.array([row[1:] for row in rows], dtype=np.int64).reshape(-1, 5).T.copy()
    return Names([row[0] for row in rows]), dict(zip(_COLUMNS, table, strict=True))


def _pack(description: str, names: Names, table: Mapping[str, NDArray[np.int64]]) -> bytes:
    """Packs an index: a line with the hash of the rest, a line that describes the archives, and the arrays."""
    arrays = save({"names": np.frombuffer(names.text, np.uint8), "ends": names.ends, **table})
    content = description.encode() + b"\n" + arrays
    return hash_data(content).encode() + b"\n" + content


def _unpack(data: bytes, description: str) -> tuple[Names, dict[str, NDArray[np.int64]]] | None:
    """Unpacks an index; one that is damaged or describes something else counts as absent."""
    digest, _, content = data.partition(b"\n")
    stated, _, packed = content.partition(b"\n")
    if stated != description.encode() or digest != hash_data(content).encode():
        return None
    arrays = load(packed)
    return Names.restore(arrays.pop("names").tobytes(), arrays.pop("ends")), arrays


def _write(place: Path, index: bytes) -> None:
    """Writes an index, without which everything works, only slower."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, index)
    except OSError as error:
        _logger.warning("%s cannot be written, so that archives will be listed again: %s", place, error)


def _expand(data: bytes, length: int) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, length) if length else b""
    except zlib.error:
        return b""
