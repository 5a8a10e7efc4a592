"""Files: atomic writes, hashes and safe names. A file appears whole or not at all, even if its writer is killed."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["hash_data", "make_safe_name", "open_regular", "read_regular", "replace_file", "sync_folder", "write_file"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")


@contextmanager
def open_regular(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Opens a regular file for reading; opening a pipe or a device neither blocks nor reads it.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            raise ValueError(f"expected a regular file, got a pipe or device: {os.fspath(path)!r}")
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_regular(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """Reads a regular file of at most `limit` bytes; None is no limit.

    Raises:
        OSError: If it cannot be opened or read.
        ValueError: If it is not a regular file, or is larger than `limit`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if limit is not None and size > limit:
            raise ValueError(f"expected at most {limit} bytes, got {size} in {os.fspath(path)!r}")
        return file.read(size)


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file atomically: if the process is killed, the file holds either its old content or the new one."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        write_file(temporary, data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Writes a new file and syncs it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Syncs a folder's list of files to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hash_data(data: bytes | str) -> str:
    """Computes the SHA-256 of bytes, or of a text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def make_safe_name(text: str, longest: int) -> str:
    """Makes a file name from a text; if it cannot hold the whole text, the name ends in a hash of the text.

    Args:
        text: The text.
        longest: Maximum number of characters of the text in the name.

    Examples:
        >>> make_safe_name("seed=1", 100)
        'seed=1'
        >>> make_safe_name("a/b", 100)
        'a-b-c14cddc0'
    """
    name = _UNSAFE.sub("-", text).lstrip(".-")[:longest]
    return name if name == text else f"{name or 'run'}-{hash_data(text)[:8]}"
