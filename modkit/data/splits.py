"""Splits of a data set: the check at the start of every `read`, and the hash that identifies contents."""

from __future__ import annotations

import hashlib

from modkit.kinds import Data

__all__ = ["check_split", "hash_contents"]


def check_split(data: Data, split: str) -> None:
    """Checks that `data` has a split.

    Raises:
        ValueError: If it has no split of that name.
    """
    if split not in data.splits:
        raise ValueError(f"{type(data).__name__} expects a split of {sorted(data.splits)}, got {split!r}")


def hash_contents(*pieces: bytes | str | int | float | bool) -> str:
    """Hashes contents and settings, each with its length; the hash is the same in every process.

    Examples:
        >>> hash_contents("digits", 8) == hash_contents("digits", 8) != hash_contents("digits8")
        True
    """
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        content = piece if isinstance(piece, bytes) else repr(piece).encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
