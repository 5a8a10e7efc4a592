"""Files of a checkpoint, which are verified as they are read: what is missing, torn or changed is damage.

A file that cannot be opened or read, because of permissions or a failing disk, is none: that is an `OSError`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from modkit.runs import tensors
from modkit.runs.encoding import CheckpointError, FileEntry
from modkit.runs.files import Digest, hash_data

__all__ = ["read_data", "read_limited", "read_tensors"]

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def read_limited(path: Path, limit: int) -> bytes:
    """Reads a file of which nothing is known but its greatest size.

    Raises:
        CheckpointError: If it is missing, no regular file or larger.
        OSError: If it cannot be opened or read.
    """
    with _open(path) as (file, size):
        if size > limit:
            raise CheckpointError(f"{path.name} has {size} bytes, expected at most {limit}")
        return file.read(size)


def read_data(path: Path, entry: FileEntry) -> bytes:
    """Reads a file.

    Raises:
        CheckpointError: If it is not that of the manifest.
        OSError: If it cannot be opened or read.
    """
    with _open(path, entry.size) as (file, size):
        data = file.read(size)
    _check(path, Digest(len(data), hash_data(data)), entry)
    return data


def read_tensors(path: Path, entry: FileEntry, *, mapped: bool = False) -> dict[str, Tensor]:
    """Reads the tensors of a file, on the CPU; those of a file that is mapped stay in it.

    Raises:
        CheckpointError: If it is not that of the manifest, or no safetensors file.
        OSError: If it cannot be opened or read.
    """
    with _open(path, entry.size) as (file, size):
        try:
            found, digest = tensors.read_tensors(file, size, mapped=mapped)
        except ValueError as error:
            raise CheckpointError(f"{path.name} is damaged: it is not a safetensors file: {error}") from error
    _check(path, digest, entry)
    return found


def _check(path: Path, digest: Digest, entry: FileEntry) -> None:
    if digest != (entry.size, entry.sha256):
        raise CheckpointError(
            f"{path.name} is damaged: its SHA-256 is {digest.sha256}, but the manifest expects {entry.sha256}"
        )


@contextmanager
def _open(path: Path, expected: int | None = None) -> Iterator[tuple[BinaryIO, int]]:
    """Opens a regular file, of the expected size if one is; what is raised within names the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe must not block
    except OSError as error:
        if error.errno in _ABSENT:
            raise CheckpointError(f"{path.name} cannot be opened: {error.strerror}") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path.name} is not a regular file")
        if expected is not None and status.st_size != expected:
            raise CheckpointError(f"{path.name} has {status.st_size} bytes, but the manifest expects {expected}")
        with open(descriptor, "rb", closefd=False) as file:
            yield file, status.st_size
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # a failed read does not name its file
    finally:
        os.close(descriptor)
