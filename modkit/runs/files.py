"""Files that appear whole or not at all, whenever their writer is killed, and names for them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

__all__ = ["replace_file", "make_safe_name", "sync_folder", "write_file"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file so that a kill at any instant leaves the former content or the new one."""
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
    """Writes a new file and brings it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Brings what a folder lists to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_safe_name(text: str, longest: int) -> str:
    """A file's name that says a text; where it cannot say all of it, it ends in a hash of the text.

    Args:
        text: The text.
        longest: Most characters of it that the name shows.
    """
    name = _UNSAFE.sub("-", text).lstrip(".-")[:longest]
    return name if name == text else f"{name or 'run'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
