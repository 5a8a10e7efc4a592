"""Hashes of files' contents, kept in the cache folder, so that a store of millions of files is read only once.

    files/STORE.hashes      a line of `MODKIT HASHES 2`, then for each file: size mtime ctime hash kind SPACE path NUL

A file is read again if its stamp differs (`modkit.data.store`). A file that has changed within the last seconds is read
each time: it may change again within the resolution of its time stamps.

Files may be inspected in the same pass, such as decoded. The kind that an inspection finds is kept beside the hash, 0
for what was not inspected. A file that is found damaged is kept as not inspected, so that it is looked at each time:
damaged files are few, and another version of the library that decodes them may read them.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeAlias

from modkit.data.store import FileStore, Folder, Stamp
from modkit.runs.cache import find_cache_folder
from modkit.runs.files import hash_data, replace_file

__all__ = ["Inspected", "hash_files", "inspect_files"]

_MAGIC = b"MODKIT HASHES 2\n"
_LINE = re.compile(rb"([0-9]+ -?[0-9]+ -?[0-9]+ [0-9a-f]{32} [0-9]) ([^\0]+)\0")
_SETTLED = 3 * 10**9  # nanoseconds; the coarsest file systems count time in steps of two seconds
_CHUNK = 2**20
_SIZE = 16  # bytes of a hash
_SHARE = 64  # files that a thread reads in turn
_MANY = 10_000  # new files from which on a notice says why nothing else happens

_logger = logging.getLogger(__name__)
_Table: TypeAlias = dict[bytes, bytes]  # by path, the rest of its line: text is a third of the size of its numbers


class Inspected(NamedTuple):
    """A file's hash, 16 bytes, and what its inspection found: the file's kind, 1 to 9, or why it is damaged."""

    digest: bytes
    kind: int = 0
    fault: str = ""


def hash_files(folder: bytes, paths: Sequence[bytes]) -> list[bytes]:
    """Hashes the contents of files, 16 bytes each.

    Args:
        folder: The folder.
        paths: The files' paths relative to it.

    Raises:
        OSError: If a file is missing or cannot be read.
        ValueError: If it is not a regular file.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     head, tail = os.path.split(os.fsencode(file.name))
        ...     hash_files(head, [tail]) == [hashlib.blake2b(digest_size=16).digest()]
        True
    """
    return [found.digest for found in inspect_files(Folder(folder), paths, None)]


def inspect_files(
    store: FileStore, paths: Sequence[bytes], inspect: Callable[[BinaryIO], int] | None
) -> Iterator[Inspected]:
    """Yields the hashes of files, and what an inspection finds, in the order of `paths`.

    Several threads read and inspect. What was found is kept even if the iteration is interrupted.

    Args:
        store: Where the files are.
        paths: Their names.
        inspect: Returns the kind of a file, 1 to 9, or raises ValueError if it is damaged. All inspections of one store
            must be the same; None only hashes.

    Raises:
        OSError: If a file is missing or cannot be read.
        ValueError: If it is not a regular file.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     head, tail = os.path.split(os.fsencode(file.name))
        ...     [found.kind for found in inspect_files(Folder(head), [tail], lambda file: 1 + len(file.read()))]
        [1]
    """
    place = find_cache_folder() / "files" / f"{hash_data(os.path.realpath(store.locate(b'')))[:32]}.hashes"
    kept = _parse(place.read_bytes()) if place.is_file() else {}
    if (new := sum(path not in kept for path in paths)) > _MANY:
        _logger.warning("%s: %s new files are read, which is done once", store.locate(b""), f"{new:,}")
    shares = [paths[start : start + _SHARE] for start in range(0, len(paths), _SHARE)]
    settled, changed = time.time_ns() - _SETTLED, False
    pool = ThreadPoolExecutor(thread_name_prefix="modkit-files")
    try:
        for share, read in zip(shares, pool.map(partial(_read, store, kept, inspect), shares)):
            for path, (stamp, found) in zip(share, read, strict=True):
                yield found
                line = _format_line(stamp, found)
                if kept.get(path) != line and max(stamp[1:]) < settled:
                    kept[path], changed = line, True
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted pass does not go on to its end
        if changed:
            _write(place, kept)


def _read(
    store: FileStore, kept: _Table, inspect: Callable[[BinaryIO], int] | None, paths: Sequence[bytes]
) -> list[tuple[Stamp, Inspected]]:
    """Reads the files at `paths`, as far as the table does not know them."""
    made = []
    for path in paths:
        stamp = store.read_stamp(path)  # before the content: what changes meanwhile has another stamp next time
        found = _find(kept, path, stamp)
        if found is None or (inspect and not found.kind):
            with store.open(path) as file:
                found = found or Inspected(_hash_file(file))
                if inspect:
                    file.seek(0)
                    found = _inspect(file, inspect, found)
        made.append((stamp, found))
    return made


def _inspect(file: BinaryIO, inspect: Callable[[BinaryIO], int], found: Inspected) -> Inspected:
    try:
        return found._replace(kind=inspect(file))
    except ValueError as error:
        return found._replace(fault=str(error) or repr(error))


def _find(kept: _Table, path: bytes, stamp: Stamp) -> Inspected | None:
    """Finds what is known of a file with this stamp."""
    line = kept.get(path, b"")
    if not line.startswith(b"%d %d %d " % stamp):
        return None
    digest, kind = line.split(b" ")[3:]
    return Inspected(bytes.fromhex(digest.decode()), int(kind))


def _hash_file(file: BinaryIO) -> bytes:
    digest = hashlib.blake2b(digest_size=_SIZE)
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return digest.digest()


def _write(place: Path, kept: _Table) -> None:
    """Writes a table, without which everything works, only slower."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, _format(kept))
    except OSError as error:
        _logger.warning("%s cannot be written, so that files will be read again: %s", place, error)


def _format_line(stamp: Stamp, found: Inspected) -> bytes:
    return b"%d %d %d %s %d" % (*stamp, found.digest.hex().encode(), found.kind)


def _format(kept: _Table) -> bytes:
    return _MAGIC + b"".join(b"%s %s\0" % (line, path) for path, line in kept.items())


def _parse(data: bytes) -> _Table:
    """Parses a table; one that is damaged or of another format counts as empty, and its files are read again."""
    if not data.startswith(_MAGIC):
        return {}
    kept, end = {}, len(_MAGIC)
    for line in _LINE.finditer(data, end):
        if line.start() != end:
            return {}
        kept[line[2]], end = line[1], line.end()
    return kept if end == len(data) else {}
