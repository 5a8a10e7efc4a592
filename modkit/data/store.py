"""Stores: where files are read from by their names, a folder or archives (`modkit.data.shards`)."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeAlias

from modkit.runs.files import open_regular

__all__ = ["FileStore", "Folder", "Stamp", "read_stamp", "show_place"]

Stamp: TypeAlias = tuple[int, int, int]
"""A file's size and its times of change of content and of status, in nanoseconds: another content, another stamp."""


class FileStore(Protocol):
    """Files by their names, which are read in any order, by several threads and processes; it can be pickled."""

    def locate(self, name: bytes) -> str:
        """Where a file is, for messages; an empty name is the store itself."""
        ...

    def read_stamp(self, name: bytes) -> Stamp:
        """Reads the stamp of a file.

        Raises:
            OSError: If it is missing.
        """
        ...

    def open(self, name: bytes) -> AbstractContextManager[BinaryIO]:
        """Opens a file.

        Raises:
            OSError: If it cannot be opened.
            ValueError: If it is not a regular file.
        """
        ...


@dataclass(frozen=True)
class Folder:
    """The files in a folder, by their relative paths.

    Args:
        path: The folder.

    Examples:
        >>> Folder(b"/pictures").locate(b"cat/1.png")
        '/pictures/cat/1.png'
    """

    path: bytes

    def locate(self, name: bytes) -> str:
        """The full path of a file."""
        return os.fsdecode(os.path.join(self.path, name) if name else self.path)

    def read_stamp(self, name: bytes) -> Stamp:
        """Reads the stamp of a file."""
        return read_stamp(os.stat(os.path.join(self.path, name)))

    def open(self, name: bytes) -> AbstractContextManager[BinaryIO]:
        """Opens a file."""
        return open_regular(self.locate(name))


def read_stamp(status: os.stat_result) -> Stamp:
    """Reads the stamp from a file's status.

    The time of the last change of status is among them because unpacking and copying may restore the time of the last
    change of content.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def show_place(path: str) -> str:
    """Shows a path in a message; a relative one with the folder in which it was sought.

    Examples:
        >>> show_place("/photos"), show_place("photos") == f"'photos' in {os.getcwd()!r}"
        ("'/photos'", True)
    """
    return repr(path) if os.path.isabs(path) else f"{path!r} in {os.getcwd()!r}"
