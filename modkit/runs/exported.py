"""The files of an exported run: spec, lock and one checkpoint, whose state has the hashes of the other two.

`modkit export` writes them into the run's directory itself. Such a run has weights, and cannot be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from modkit.runs import checkpoint as store
from modkit.runs.checkpoint import Checkpoint, CheckpointError
from modkit.runs.files import hash_data, read_regular, write_file
from modkit.runs.layout import LOCK, SPEC, STATE
from modkit.runs.lock import encode

__all__ = ["check_exported", "read_exported", "write_exported"]


def write_exported(path: Path, spec_text: str, lock: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Writes the files into an empty directory.

    Raises:
        ValueError: If a tensor is not dense.
    """
    files = {LOCK: encode(lock), SPEC: spec_text.encode()}
    for name, data in files.items():
        write_file(path / name, data)
    hashes = {name: hash_data(data) for name, data in files.items()}
    store.write(path, Checkpoint({"model": dict(weights)}, {"sha256": hashes}))


def check_exported(path: Path) -> None:
    """Checks spec and lock against their hashes in the state, whose own hash is in the manifest.

    Raises:
        ValueError: If one of them was changed, or the state is damaged or missing.
    """
    try:
        hashes = json.loads(read_regular(path / STATE))["sha256"]
        wrong = [name for name in (LOCK, SPEC) if hashes[name] != hash_data(read_regular(path / name))]
    except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: {STATE} is damaged or missing: {error!r}") from error
    if wrong:
        raise ValueError(
            f"{path}: {wrong[0]} was changed after the export: its SHA-256 differs from the one in {STATE}"
        )


def read_exported(path: Path) -> Checkpoint:
    """Reads the only checkpoint.

    Raises:
        CheckpointError: If it is damaged.
        OSError: If a file cannot be opened or read.
    """
    try:
        return store.read(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
