"""Bytes read one after another, none of them beyond the end."""

from __future__ import annotations

import struct
from typing import Any, Protocol

__all__ = ["Bytes", "Stream"]


class Bytes(Protocol):
    """Bytes at hand: `bytes` or a mapped file."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: slice, /) -> bytes: ...

    def find(self, sub: bytes, start: int, end: int, /) -> int:
        """The first place of `sub`, or -1."""
        ...


class Stream:
    """Reads bytes one after another, from `place` on."""

    def __init__(self, data: Bytes, place: int = 0) -> None:
        self._data, self.place = data, place

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return len(self._data) - self.place

    def take(self, num: int) -> bytes:
        """The next `num` bytes.

        Raises:
            ValueError: If there are fewer.
        """
        if num > self.left:
            raise ValueError(f"truncated: expected {num} more bytes at byte {self.place}, got {self.left}")
        self.place += num
        return self._data[self.place - num : self.place]

    def line(self, limit: int) -> bytes:
        """What comes before the next newline, which is passed.

        Raises:
            ValueError: If there is none within `limit` bytes.
        """
        end = self._data.find(b"\n", self.place, min(self.place + limit, len(self._data)))
        if end < 0:
            raise ValueError(f"truncated: expected a line of at most {limit} bytes at byte {self.place}")
        found = self._data[self.place : end]
        self.place = end + 1
        return found

    def number(self, form: str) -> Any:
        """The next number, by its `struct` format."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]
