"""Files: atomic writes, hashes and safe names. A file appears whole or not at all, even if its writer is killed.

A file or folder that is not complete yet has a temporary name, `.NAME.tmp-PID-RANDOM`. The random part keeps processes
of two machines or containers apart, which may have the same number.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

__all__ = [
    "BLOCK", "Digest", "expand_home", "fill_folder", "find_final_name", "hash_data", "is_address", "make_folders",
    "make_own_folder", "make_safe_name", "make_temporary_path", "name_errors", "open_own", "open_regular",
    "read_regular", "refuse_link", "replace_file", "sync_folder", "sync_tree", "write_all", "write_file",
]  # fmt: skip

BLOCK = 2**24
"""Bytes that are read, written or hashed at a time."""

_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")
_TEMPORARY = re.compile(r"\.(.+)\.tmp-[0-9]+(?:-[0-9a-f]+)?")


def make_temporary_path(path: Path) -> Path:
    """Makes a path beside `path` that no other process uses, for what will be renamed to it."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def find_final_name(name: str) -> str | None:
    """Finds the name for which `make_temporary_path` made a name, in any version; None for other names.

    Examples:
        >>> find_final_name(make_temporary_path(Path("runs/spec.yaml")).name)
        'spec.yaml'
    """
    match = _TEMPORARY.fullmatch(name)
    return match[1] if match else None


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


def replace_file(path: Path, data: bytes | memoryview) -> None:
    """Writes a file atomically: if the process is killed, the file holds either its old content or the new one.

    A link in its place is replaced, not followed.
    """
    temporary = make_temporary_path(path)
    with _open_synced(path.parent):  # before another process, which may wait for the file, can move the folder
        try:
            write_file(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class Digest(NamedTuple):
    """The size of a file in bytes, and its SHA-256."""

    size: int
    sha256: str


def write_file(path: Path, data: bytes | memoryview) -> Digest:
    """Writes a new file and syncs it to the disk; it is hashed on the way."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    sha256, rest = hashlib.sha256(), memoryview(data)
    try:
        with name_errors(path):
            for block in (rest[begin : begin + BLOCK] for begin in range(0, len(rest), BLOCK)):
                write_all(descriptor, block)
                sha256.update(block)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return Digest(len(data), sha256.hexdigest())


def write_all(descriptor: int, data: memoryview) -> None:
    """Writes all of the bytes, which the system may take in several pieces."""
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def name_errors(path: Path) -> Iterator[None]:
    """Names a file in errors of the disk that name none, as those of open files do."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Syncs a folder's list of files to the disk."""
    _sync(folder)


def sync_tree(folder: Path) -> None:
    """Syncs all files and folders in a folder, and the folder itself, to the disk; links are not followed."""
    for parent, _, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names):
            if path.is_file() and not path.is_symlink():
                _sync(path)
        _sync(Path(parent))


def make_folders(folder: Path) -> list[Path]:
    """Makes a folder and its missing parents, and syncs them to the disk; returns what it made, the outermost last."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)
    return missing


@contextmanager
def fill_folder(out: Path, command: str) -> Iterator[Path]:
    """Makes a folder with what is written in the context, which is given a temporary one; after an error there is none.

    Args:
        out: The folder, absent or empty.
        command: Who fills it, for messages.

    Raises:
        ValueError: If it is a file, or not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{command} expects a folder that is absent or empty, got {out}")
    make_folders(out.absolute().parent)
    temporary = make_temporary_path(out.absolute())
    temporary.mkdir()
    try:
        yield temporary
        sync_tree(temporary)
        if out.exists():
            out.rmdir()
        os.replace(temporary, out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(out.absolute().parent)


def make_own_folder(folder: Path) -> None:
    """Makes a folder inside one that exists; does nothing if it is there already.

    Raises:
        ValueError: If it is a link: what is written into it would end elsewhere.
    """
    refuse_link(folder)
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


def open_own(path: str, flags: int) -> int:
    """Opens a file for writing and returns its descriptor; to be used as an `opener`.

    Raises:
        ValueError: If it is a link, since what is written would end elsewhere, or a pipe, which would block.
    """
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_link(Path(path))
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"expected a regular file, got a pipe or device: {path!r}")
    return descriptor


def refuse_link(path: Path) -> None:
    """Refuses a link where modkit would write.

    Raises:
        ValueError: If it is one.
    """
    if path.is_symlink():
        raise ValueError(f"{path} is a link, through which nothing is written: put what it points to in its place")


def expand_home(text: str) -> str:
    """Writes out the home folder in a path that begins with `~/`; other texts are returned as they are.

    Specs and the command line use it for all that they pass on, so no part needs to.

    Examples:
        >>> expand_home("~/photos") == str(Path.home() / "photos")
        True
        >>> expand_home("photos/~/a")
        'photos/~/a'
    """
    return os.path.expanduser(text) if text == "~" or text.startswith("~/") else text


def is_address(path: str | os.PathLike[str]) -> bool:
    """Whether a run's path is an address, for which a plug-in finds the folder.

    Examples:
        >>> is_address("hf://user/name"), is_address("runs/vae")
        (True, False)
    """
    return "://" in os.fspath(path)


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


def _sync(path: Path) -> None:
    with _open_synced(path):
        pass


@contextmanager
def _open_synced(path: Path) -> Iterator[None]:
    """Syncs what is at a path now to the disk at the end of the context, wherever it is by then."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
