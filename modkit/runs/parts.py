"""The files of a checkpoint, which several processes may write together; nothing but files is exchanged.

The first process makes a folder under a temporary name. The others find it, write their files into it, and each at last
`part-RANK.json`: what it has written, or the error that kept it from that. The first process waits for all of these.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from modkit.runs.encoding import FileEntry, dump_entries, parse_entries
from modkit.runs.files import Digest, find_final_name, replace_file, write_file
from modkit.runs.layout import FROZEN
from modkit.runs.snapshot import Snapshot, TensorFile

__all__ = ["Patience", "collect", "write_part", "write_files"]

T = TypeVar("T")

_PAUSE = 0.02  # seconds from one look to the next
_GRACE = 5.0  # seconds that a wait goes on once it is cut short


class Patience:
    """How long a process waits for the files of another one.

    Args:
        timeout: Seconds.
    """

    def __init__(self, timeout: float = 1800.0) -> None:
        self._timeout, self._latest = timeout, math.inf

    def cut_short(self) -> None:
        """Ends all waits in a few seconds: the other process may be gone."""
        self._latest = time.monotonic() + _GRACE

    def wait(self, look: Callable[[], T | None], what: str) -> T:
        """Looks until there is something, and returns it.

        Raises:
            TimeoutError: If there is nothing in time.
        """
        begun = time.monotonic()
        while (found := look()) is None:
            if time.monotonic() > min(begun + self._timeout, self._latest):
                raise TimeoutError(f"waited {time.monotonic() - begun:.0f} s for {what}")
            time.sleep(_PAUSE)
        return found


def write_files(folder: Path, snapshot: Snapshot) -> dict[str, FileEntry]:
    """Writes the tensors of a snapshot into a folder; those that checkpoints share go beside it, unless they are there.

    Returns:
        The files by name.
    """
    entries = {}
    for name, part in snapshot.parts.items():
        if part.frozen:
            name, digest = _keep(folder.parent, part)
        else:
            digest = write_file(folder / name, part.data)
        entries[name] = FileEntry(*digest, part.group, part.slices, part.frozen)
    return entries


def write_part(directory: Path, name: str, snapshot: Snapshot, patience: Patience) -> None:
    """Writes the part of a process other than the first.

    Raises:
        TimeoutError: If the first process does not begin to write the checkpoint.
        OSError: If the part cannot be written; the first process is told.
    """
    what = f"process 0 to begin the checkpoint {directory / name}"
    folder = patience.wait(lambda: _find_temporary(directory, name), what)
    note = folder / f"part-{snapshot.rank}.json"
    try:
        entries = write_files(folder, snapshot)
        replace_file(note, dump_entries(entries))
    except OSError as error:
        with suppress(OSError):
            replace_file(note, json.dumps({"error": str(error)}).encode())
        raise


def collect(folder: Path, ranks: Iterable[int], patience: Patience) -> dict[str, FileEntry]:
    """Waits for the parts of other processes, and returns their files by name.

    Raises:
        TimeoutError: If one does not write its part in time.
        OSError: If one could not write it.
    """
    entries: dict[str, FileEntry] = {}
    for rank in sorted(ranks):
        note = folder / f"part-{rank}.json"
        data = patience.wait(lambda path=note: _read(path), f"the part of process {rank} of {folder}")  # type: ignore[misc]
        if "error" in (told := json.loads(data)):
            raise OSError(f"process {rank} could not write its part of a checkpoint: {told['error']}")
        entries |= parse_entries(note.name, data)
        note.unlink()
    return entries


def _keep(directory: Path, part: TensorFile) -> tuple[str, Digest]:
    """Writes a file under the hash of its content, if there is none of this name and size."""
    digest = Digest(len(part.data), hashlib.sha256(part.data).hexdigest())
    path = directory / f"{FROZEN}{digest.sha256}.safetensors"
    if not path.is_file() or path.stat().st_size != digest.size:
        replace_file(path, part.data)
    return path.name, digest


def _find_temporary(directory: Path, name: str) -> Path | None:
    """Finds the folder in which the first process writes a checkpoint."""
    found = [entry for entry in _list(directory) if find_final_name(entry) == name]
    return directory / found[0] if found else None


def _list(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except FileNotFoundError:
        return []


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
