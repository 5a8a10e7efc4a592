"""Losses as a table: a line a loss and logged step, in a file that any program reads.

A logger is an object with any of the methods that `modkit.kinds.Logger` names; each is told the run, whose folder is
`run.path`. It draws nothing, and a failing one is left out, so that it never stops a run.
"""

import csv
from collections.abc import Mapping

from modkit import Run

__all__ = ["Table"]


class Table:
    """Writes `stage,step,loss,value` to a file in the run's folder.

    A resumed run goes on where the file ends; the steps between the checkpoint and the interruption then stand in it
    twice, with the same values.

    References:
        RFC 4180 (Shafranovich, 2005), https://www.rfc-editor.org/rfc/rfc4180

    Args:
        file: Name of the file.
        every: Losses are written each n-th step.

    Raises:
        ValueError: If `every` is below 1, or `file` is more than a name.
    """

    def __init__(self, *, file: str = "losses.csv", every: int = 1) -> None:
        if every < 1 or not file or "/" in file or "\\" in file:
            raise ValueError(f"Table expects every >= 1 and a file's name, got {every} and {file!r}")
        self.file, self.every = file, every

    def run_started(self, run: Run) -> None:
        """Begins the table, unless it is there."""
        if not (run.path / self.file).exists():
            self._write(run, [("stage", "step", "loss", "value")])

    def step_done(self, run: Run, stage: int, step: int, losses: Mapping[str, float]) -> None:
        """Adds the losses of a step, each under `player/term`."""
        if step % self.every == 0:
            self._write(run, [(stage, step, name, value) for name, value in losses.items()])

    def _write(self, run: Run, rows: list[tuple[object, ...]]) -> None:
        with (run.path / self.file).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
