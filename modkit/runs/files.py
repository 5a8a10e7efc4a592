"""Files that appear complete or not at all, even if their writer is killed; names for them, and hashes of contents."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

__all__ = ["hash_sha256", "replace_file", "safe_name", "sync_folder", "write_file"]

_UNSAFE = re.compile(r"[^A-Za-z0-9._=,+-]+")


def hash_sha256(content: bytes | str) -> str:
    """Hashes bytes, or a text in UTF-8, by SHA-256; returns 64 hexadecimal digits.

    Examples:
        >>> hash_sha256("modkit") == hash_sha256(b"modkit")
        True
    """
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file so that killing the process at any time leaves either the former content or the new one."""
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
    """Writes a new file and flushes it to disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flushes the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def safe_name(text: str, longest: int) -> str:
    """Turns a text into a file name; if the name cannot show all of it, it ends in a hash of the text.

    Args:
        text: The text.
        longest: Maximal number of characters of the text that the name shows.

    Examples:
        >>> safe_name("model.sampler=ddim", 40)
        'model.sampler=ddim'
        >>> safe_name("a b", 40)
        'a-b-c8687a08'
    """
    name = _UNSAFE.sub("-", text).lstrip(".-")[:longest]
    return name if name == text else f"{name or 'run'}-{hash_sha256(text)[:8]}"
