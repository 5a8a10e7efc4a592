"""Rows: a `.jsonl` file to which a run appends one JSON object per line.

A kill may leave an incomplete last line, which `read` ignores and `cut` removes. A checkpoint keeps the mark of the
rows before it, so that a resumed run logs the later ones again, and notices if the earlier ones have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from modkit.runs.files import hash_data, name_errors, open_own, open_regular, read_regular

__all__ = ["Mark", "Rows", "to_columns"]

_LONGEST = 2**20  # bytes of a row


class Mark(NamedTuple):
    """A place in a file of rows.

    Args:
        size: Size of the rows before it, in bytes.
        sha256: Their SHA-256; None if it is not known.
    """

    size: int = 0
    sha256: str | None = None

    @classmethod
    def read(cls, kept: object, where: Path) -> Mark:
        """Reads a mark from JSON: its fields, or in older runs its size.

        Args:
            kept: What was read.
            where: Where it was read, for the message.

        Raises:
            ValueError: If it is no mark.
        """
        fields = kept if isinstance(kept, dict) else {"size": kept}
        size, sha256 = fields.get("size", 0), fields.get("sha256")
        if not fields.keys() <= {"size", "sha256"} or type(size) is not int or not isinstance(sha256, str | None):
            raise ValueError(f"{where}: expected a mark of the metrics, got {kept!r}")
        return cls(size, sha256)


class Rows:
    """A file of rows, which is created when the first one is appended. No link is followed in its place.

    Args:
        path: The file.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     rows = Rows(Path(folder, "metrics.jsonl"))
        ...     rows.append({"step": 1})
        ...     mark = rows.mark()
        ...     rows.append({"step": 2})
        ...     rows.cut(mark)
        ...     rows.read()
        [{'step': 1}]
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()

    def append(self, row: dict[str, Any]) -> None:
        """Appends a row.

        Raises:
            ValueError: If it is not plain JSON, or a number is not finite; or if the file is a link.
        """
        try:
            line = json.dumps(row, allow_nan=False).encode() + b"\n"  # floats are written by repr and so are exact
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Run expects rows of plain values and finite numbers in {self.path.name}, got {row}"
            ) from error
        file = self._open()
        with name_errors(self.path):
            file.write(line)
            file.flush()
        self._hash.update(line)

    def read(self) -> list[dict[str, Any]]:
        """Reads the rows, without an incomplete last line.

        Raises:
            ValueError: If a line is damaged; the message names the line.
        """
        lines = read_regular(self.path).split(b"\n")[:-1] if self.path.exists() else []
        return [_parse_row(self.path, number, line) for number, line in enumerate(lines, 1)]

    def read_last(self) -> dict[str, Any] | None:
        """Reads the last complete row, and no others; None if there is none.

        Raises:
            ValueError: If it is damaged, or longer than a row can be.
        """
        if not self.path.exists():
            return None
        with open_regular(self.path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(size - _LONGEST, 0))
            lines = file.read(_LONGEST).split(b"\n")
        return _parse_row(self.path, "end", lines[-2]) if len(lines) > 1 else None

    def mark(self) -> Mark:
        """Syncs the rows to the disk and returns the mark after the last one."""
        file = self._open()
        with name_errors(self.path):
            os.fsync(file.fileno())
        return Mark(os.fstat(file.fileno()).st_size, self._hash.hexdigest())

    def check(self, mark: Mark) -> None:
        """Checks that the rows before a mark are those for which it was made.

        Raises:
            ValueError: If the file is shorter, or the rows have changed.
        """
        data = read_regular(self.path) if self.path.exists() else b""
        if not 0 <= mark.size <= len(data):
            raise ValueError(f"Run.cut expects a mark in [0, {len(data)}], the size of {self.path}, got {mark.size}")
        if mark.sha256 is not None and mark.sha256 != hash_data(data[: mark.size]):
            raise ValueError(
                f"{self.path} was changed: its first {mark.size} bytes are not the rows that were logged before the "
                "checkpoint; restore the file to resume the run"
            )

    def cut(self, mark: Mark | None = None) -> None:
        """Removes the rows after a mark, or only an incomplete last line if it is None; closes the file.

        Raises:
            ValueError: If the file is a link.
        """
        self.close()
        if not self.path.exists():
            return
        with open(self.path, "r+b", opener=open_own) as file:
            kept = file.read(None if mark is None else mark.size)
            file.truncate(kept.rfind(b"\n") + 1)
            os.fsync(file.fileno())

    def close(self) -> None:
        """Closes the file; appending opens it again."""
        if self._file:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO:
        if self._file is None:
            self._file = open(self.path, "ab", opener=open_own)
            self._hash = hashlib.sha256(read_regular(self.path))
        return self._file


def _parse_row(path: Path, number: int | str, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}:{number} is not a row of metrics: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{path}:{number} expects a JSON object, got {type(row).__name__}")
    return row


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def to_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Turns rows into columns by name, with the members of nested objects by their own names; None where there is none.

    Examples:
        >>> to_columns([{"step": 1, "losses": {"nll": 2.0}}, {"step": 2, "scores": {"FD": 0.5}}])
        {'step': [1, 2], 'nll': [2.0, None], 'FD': [None, 0.5]}
    """
    flat = []
    for row in rows:
        nested = [value for value in row.values() if isinstance(value, Mapping)]
        plain = {name: value for name, value in row.items() if not isinstance(value, Mapping)}
        flat.append({**plain, **{name: value for group in nested for name, value in group.items()}})
    return {name: [row.get(name) for row in flat] for name in dict.fromkeys(name for row in flat for name in row)}
