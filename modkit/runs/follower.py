"""A run that another process of the same training writes: it is read like any other, and writing does nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from modkit.runs.checkpoint import Checkpoint, Latest
from modkit.runs.layout import FIRST
from modkit.runs.parts import Patience
from modkit.runs.rows import Mark
from modkit.runs.run import Run
from modkit.runs.snapshot import Memory, Snapshot, take

__all__ = ["Follower"]


class Follower(Run):
    """The run of a training in a process that does not write, opened by `Follower.open`.

    Examples:
        >>> import tempfile
        >>> from modkit import Spec, use
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with Run.create(f"{folder}/run", Spec(name="tiny", model=use("acme/mixture")), {}) as run:
        ...         Follower.open(run.path).log({"step": 1, "losses": {"player/nll": 0.5}})
        ...         run.read_metrics()
        []
    """

    def hold(self) -> Run:
        """Returns the run, which the writing process holds."""
        return self

    def log(self, row: Mapping[str, Any]) -> None:
        """Does nothing."""

    def log_time(self, row: Mapping[str, Any]) -> None:
        """Does nothing."""

    def save(self, name: str, checkpoint: Checkpoint) -> Path:
        """Returns the folder of the checkpoint, which the other process writes."""
        return self.checkpoints / name

    def take_snapshot(self, checkpoint: Checkpoint, memory: Memory) -> Snapshot:
        """Copies the slices of tensors that this process holds."""
        return take(checkpoint, memory, whole=False)

    def save_snapshot(self, name: str, snapshot: Snapshot, patience: Patience, folder: Path | None = None) -> Path:
        """Writes the slices that this process holds, if there are any, into the checkpoint of the other process."""
        if snapshot.rank:
            return super().save_snapshot(name, snapshot, patience, folder)
        return (folder or self.checkpoints) / name

    def write_picture(self, name: str, grid: Tensor) -> Path:
        """Returns the path of the picture, which the other process writes."""
        return self.samples / f"{name}.png"

    def rewind(self, latest: Latest | None) -> dict[str, str]:
        """Returns no renamed checkpoints: the other process renames them."""
        return {}

    def cut(self, mark: Mark = Mark()) -> None:  # noqa: B008
        """Does nothing."""

    def prune(self, keep: int, kept: set[str]) -> None:
        """Does nothing."""

    def prune_averages(self, first: float = -math.inf, last: float = math.inf) -> None:
        """Does nothing."""

    def revise(self, spec: Any, lock: Mapping[str, Any], changes: Sequence[Mapping[str, Any]], step: int = 0) -> None:
        """Does nothing."""

    def record(self, **found: Any) -> None:
        """Does nothing."""

    def withdraw(self, begun: str = FIRST) -> bool:
        """Does nothing, and returns False."""
        return False

    def finish(self) -> None:
        """Does nothing."""
