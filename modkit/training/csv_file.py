"""A CSV file: a run's losses, measures and scores as a table, one row a step.

    stage,step,player/nll,player/kl,scores/fd
    0,1,0.9,0.25,
    0,2,0.8,0.3125,41.5

The table is written from the metrics at each start, so rows after the checkpoint disappear from both, and again when it
gets a new column or a score, whose row is there already. Other rows are appended.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from modkit.runs.files import open_own, refuse_link, replace_file
from modkit.runs.run import Run
from modkit.types import PositiveInt, checked

__all__ = ["CSVFile"]


@checked
class CSVFile:
    """Writes losses, measures and scores as a table, one row a step, into a CSV file in the run's directory.

    A row has the `stage`, the `step` of the run, losses as `player/term`, norms of gradients as `gradient_norm/player`,
    learning rates as `learning_rate/player` and scores as `scores/NAME`; a cell is empty where a step has no such
    value. A new name adds a column at the end. Numbers are written exactly. A resumed run has the same file as one that
    was never stopped, so it has no times.

    Args:
        file: Name of the file, which ends in `.csv`.
        every: Losses are written at steps divisible by this number; scores are always written.

    Examples:
        >>> CSVFile(file="losses.txt")
        Traceback (most recent call last):
        ...
        ValueError: CSVFile expects a plain file name that ends in .csv, got 'losses.txt'

    Raises:
        ValueError: If `every` is below 1, or `file` is not a plain name that ends in `.csv`.
    """

    def __init__(self, *, file: str = "metrics.csv", every: PositiveInt = 1) -> None:
        if not file.endswith(".csv") or file.startswith(".") or "/" in file or "\\" in file:
            raise ValueError(f"CSVFile expects a plain file name that ends in .csv, got {file!r}")
        self._name, self._every = file, every
        self._columns: list[str] = []

    def run_started(self, run: Run) -> None:
        """Writes the table of the steps so far, in place of an earlier one."""
        rows: dict[int, dict[str, Any]] = {}
        for row in run.read_metrics():
            stage, step = row["stage"], row["step"]
            if "scores" in row:
                values = {f"scores/{name}": value for name, value in row["scores"].items()}
            elif step % self._every:
                continue
            else:
                values = {**row["losses"], **row.get("measures", {})}  # runs of before have no measures
            rows.setdefault(step, {}).update({"stage": stage, "step": step, **values})
        self._columns = list(dict.fromkeys(chain(("stage", "step"), *rows.values())))
        refuse_link(run.path / self._name)
        head = dict(zip(self._columns, self._columns))
        replace_file(run.path / self._name, self._format([head, *rows.values()]))

    def step_done(
        self, run: Run, stage: int, step: int, losses: Mapping[str, float], measures: Mapping[str, float]
    ) -> None:
        """Adds a row with the losses and measures of a step."""
        if step % self._every:
            return
        values = {**losses, **measures}
        if values.keys() - self._columns:
            self.run_started(run)
            return
        with open(run.path / self._name, "r+b", opener=open_own) as file:
            file.seek(0, io.SEEK_END)
            file.write(self._format([{"stage": stage, "step": step, **values}]))

    def scores_ready(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        """Adds scores to the row of their step."""
        self.run_started(run)

    def _format(self, rows: Iterable[Mapping[str, Any]]) -> bytes:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()
