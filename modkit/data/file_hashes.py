"""Hashes of files' contents, kept in the cache folder, so that a folder of millions of files is read only once.

    files/FOLDER.hashes      a line of `MODKIT HASHES 1`, then for each file: size mtime ctime hash path NUL

A file is read again if its size or one of its time stamps, in nanoseconds, differs. The time of its last change of
status is among them because unpacking and copying may restore the time of its last change of content. A file that has
changed within the last seconds is read each time: it may change again within the resolution of its time stamps.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from typing import TypeAlias

from modkit.runs.cache import find_cache_folder
from modkit.runs.files import hash_data, open_regular, replace_file

__all__ = ["hash_files"]

_MAGIC = b"MODKIT HASHES 1\n"
_SETTLED = 3 * 10**9  # nanoseconds; the coarsest file systems count time in steps of two seconds
_CHUNK = 2**20
_SIZE = 16  # bytes of a hash

_Stamp: TypeAlias = tuple[int, int, int]
_Table: TypeAlias = dict[bytes, tuple[_Stamp, bytes]]


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
    place = find_cache_folder() / "files" / f"{hash_data(os.path.realpath(folder))[:32]}.hashes"
    kept = _parse(place.read_bytes()) if place.is_file() else {}
    now, changed, hashes = time.time_ns(), False, []
    for path in paths:
        full = os.path.join(folder, path)
        stamp = _read_stamp(full)  # before the content: what changes meanwhile has another stamp next time
        known = kept.get(path)
        digest = known[1] if known is not None and known[0] == stamp else _hash_file(full)
        hashes.append(digest)
        if known != (stamp, digest) and max(stamp[1:]) < now - _SETTLED:
            kept[path], changed = (stamp, digest), True
    if changed:
        place.parent.mkdir(parents=True, exist_ok=True)
        replace_file(place, _format(kept))
    return hashes


def _read_stamp(path: bytes) -> _Stamp:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash_file(path: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_SIZE)
    with open_regular(os.fsdecode(path)) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.digest()


def _format(kept: _Table) -> bytes:
    lines = (b"%d %d %d %s %s\0" % (*stamp, digest.hex().encode(), path) for path, (stamp, digest) in kept.items())
    return _MAGIC + b"".join(lines)


def _parse(data: bytes) -> _Table:
    """Parses a table; one that is damaged or of another format counts as empty, and its files are read again."""
    kept: _Table = {}
    if not data.startswith(_MAGIC):
        return {}
    try:
        for line in data[len(_MAGIC) :].split(b"\0")[:-1]:
            size, modified, changed, digest, path = line.split(b" ", 4)
            kept[path] = ((int(size), int(modified), int(changed)), bytes.fromhex(digest.decode()))
    except ValueError:
        return {}
    return kept
