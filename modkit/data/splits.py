"""Splits of a data set: what every `read` checks first, and the hash that tells two contents apart."""

from __future__ import annotations

import hashlib

from modkit.kinds import Data

__all__ = ["check_split", "content_key"]


def check_split(data: Data, split: str) -> None:
    """Checks that `data` has that split.

    Raises:
        ValueError: If it has none of that name.
    """
    if split not in data.splits:
        raise ValueError(f"{type(data).__name__} expects a split of {sorted(data.splits)}, got {split!r}")


def content_key(*pieces: bytes | str | int | float | bool) -> str:
    """A hash of contents and settings, the same in every process; each piece is hashed with its length."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        content = piece if isinstance(piece, bytes) else repr(piece).encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
