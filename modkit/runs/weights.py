"""The weights of a run, and the checkpoints that they are read from.

A run that trains has a folder of checkpoints, one written by `modkit export` is itself its only one. Weights are those
of the model, averaged if the stage keeps an average; whatever else a checkpoint holds is not read.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from modkit.runs import checkpoint as store
from modkit.runs.checkpoint import Checkpoint, CheckpointError, Latest
from modkit.runs.exported import read_exported

__all__ = ["WeightReader", "Weights"]

_GROUPS = ("model", "ema")
_logger = logging.getLogger(__name__)


class Weights(NamedTuple):
    """The weights of a checkpoint, averaged if the stage keeps an average, and the checkpoint's name."""

    checkpoint: str
    tensors: dict[str, Tensor]


class WeightReader:
    """Finds the checkpoints of a run, and reads the weights in them, while training may go on.

    Args:
        path: The run's directory.
        lock: What the run was made with: whether it is exported, and its name for itself.
    """

    def __init__(self, path: Path, lock: Mapping[str, Any]) -> None:
        self.path = path
        self._folder = path / "checkpoints"
        self._exported, self._owner = lock.get("exported"), lock.get("run")

    def list_names(self) -> list[str]:
        """Lists the names of the checkpoints, in order."""
        return store.list_names(self._folder) if self._exported is None else [str(self._exported)]

    def find(self, name: str | None = None) -> Path:
        """Finds the path of a checkpoint, see `find_name`."""
        found = self.find_name(name)
        return self._folder / found if self._exported is None else self.path

    def find_name(self, name: str | None = None) -> str:
        """Finds the name of a checkpoint: the last intact one, the `best`, or the one with this name.

        Raises:
            ValueError: If there is no such checkpoint.
        """
        if name is None and self._exported is None:
            return self._read_latest(_GROUPS).path.name
        kept = self.list_names()
        if name is None:
            return kept[0]
        best: object = name
        if name == "best" and self._exported is None:
            latest = self._read_latest(())
            try:
                best = latest.checkpoint.state["cursor"]["best_name"]
            except (KeyError, TypeError) as error:
                raise ValueError(f"{latest.path} does not state which checkpoint is the best") from error
        if best not in kept:
            reason = "no score was watched during training" if best is None else f"available: {', '.join(kept)}"
            raise ValueError(f"{self.path} has no checkpoint {name!r}; {reason}")
        return str(best)

    def read(self, checkpoint: str | None = None) -> Weights:
        """Reads the weights of a checkpoint, see `find_name`.

        If the newest checkpoints are damaged, a warning names them and the one that is read instead.

        Raises:
            ValueError: If there is no such checkpoint, or it is damaged.
            OSError: If a file cannot be opened or read.
        """
        if self._exported is not None:
            name, kept = self.find_name(checkpoint), read_exported(self.path)
        elif checkpoint is None:
            path, kept, faults = self._read_latest(_GROUPS)
            name = path.name
            if faults:
                listed = ", ".join(f"{other} is damaged ({fault})" for other, fault in faults.items())
                _logger.warning("%s: %s; the older checkpoint %s is used instead", self.path, listed, name)
        else:
            name, kept = self._read_named(checkpoint)
        tensors = dict(kept.tensors["model"])
        for key, average in kept.tensors.get("ema", {}).items():
            tensors[key].copy_(average)  # in place, since a shared tensor has several names
        return Weights(name, tensors)

    def _read_latest(self, groups: Collection[str]) -> Latest:
        """Reads groups of tensors of the last checkpoint in which they are intact."""
        try:
            latest = store.read_latest(self._folder, groups, self._owner)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path} has no intact checkpoint: {error}") from error
        if latest is None:
            raise ValueError(f"{self.path} has no checkpoint yet")
        return latest

    def _read_named(self, checkpoint: str) -> tuple[str, Checkpoint]:
        """Reads the weights of the best checkpoint, or of one with a name."""
        while True:
            name = self.find_name(checkpoint)
            try:
                return name, store.load(self._folder / name, _GROUPS, self._owner)
            except CheckpointError:
                if self.find_name(checkpoint) == name:
                    raise
