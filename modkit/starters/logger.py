"""Losses as a table: one line per loss and step, in a CSV file.

A logger has any of the methods of `modkit.kinds.Logger`; each gets the run, whose folder is `run.path`. A logger draws
no random numbers. If it fails it is disabled, so that it never stops a run.
"""

import csv
from collections.abc import Mapping

from modkit import Run
from modkit.types import PositiveInt, checked

__all__ = ["Table"]


@checked
class Table:
    """Writes `stage,step,loss,value` to a file in the run's folder.

    A resumed run appends to the file; the steps between the checkpoint and the interruption then appear twice, with the
    same values.

    References:
        RFC 4180 (Shafranovich, 2005), https://www.rfc-editor.org/rfc/rfc4180

    Args:
        file: Name of the file.
        every: Losses are written every n-th step.

    Raises:
        ValueError: If `every` is below 1, or `file` is not a plain file name.
    """

    def __init__(self, *, file: str = "losses.csv", every: PositiveInt = 1) -> None:
        if not file or "/" in file or "\\" in file:
            raise ValueError(f"Table expects a plain file name, got {file!r}")
        self.file, self.every = file, every

    def run_started(self, run: Run) -> None:
        """Writes the header if the file does not exist."""
        if not (run.path / self.file).exists():
            self._write(run, [("stage", "step", "loss", "value")])

    def step_done(self, run: Run, stage: int, step: int, losses: Mapping[str, float]) -> None:
        """Appends the losses of a step, each named `player/term`."""
        if step % self.every == 0:
            self._write(run, [(stage, step, name, value) for name, value in losses.items()])

    def _write(self, run: Run, rows: list[tuple[object, ...]]) -> None:
        with (run.path / self.file).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
