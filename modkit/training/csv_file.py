"""A CSV file: a run's losses and scores as a table, one row a step.

    stage,step,player/nll,player/kl,scores/fd
    0,1,0.9,0.25,
    0,2,0.8,0.3125,41.5

The table is rebuilt from the metrics at each start, so rows after the checkpoint disappear from both; after that, each
logged row is appended to both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from modkit.runs.files import open_own, read_regular, refuse_link, replace_file
from modkit.runs.run import Run
from modkit.types import PositiveInt, checked

__all__ = ["CSVFile"]

_Row: TypeAlias = "dict[str, Any]"


@checked
class CSVFile:
    """Writes losses and scores as a table, one row a step, into a CSV file in the run's directory.

    A row has the `stage`, the `step` of the run, losses as `player/term` and scores as `scores/NAME`; a cell is empty
    where a step has no such value. A new loss or score adds a column at the end. Numbers are written exactly. A resumed
    run has the same file as one that was never stopped.

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
        self._last: _Row = {}
        self._start = 0  # where the last row starts, in bytes

    def run_started(self, run: Run) -> None:
        """Writes the table of the steps so far, in place of an earlier one."""
        rows = list(self._read_rows(run))
        self._columns = list(dict.fromkeys(("stage", "step", *(name for row in rows for name in row))))
        self._replace(run, rows)

    def step_done(self, run: Run, stage: int, step: int, losses: Mapping[str, float]) -> None:
        """Adds a row with the losses of a step."""
        if step % self._every == 0:
            self._add(run, {"stage": stage, "step": step, **losses})

    def scores_ready(self, run: Run, step: int, scores: Mapping[str, float]) -> None:
        """Adds scores to the row of their step."""
        values = _name_scores(scores)
        if self._last.get("step") == step:
            self._add(run, {**self._last, **values}, again=True)
        else:
            self._add(run, {"stage": run.read_metrics()[-1]["stage"], "step": step, **values})

    def _read_rows(self, run: Run) -> Iterator[_Row]:
        """Reads the rows of the table from the metrics of a run."""
        made: _Row = {}
        for row in run.read_metrics():
            values = _name_scores(row["scores"]) if "scores" in row else row["losses"]
            if "losses" in row and row["step"] % self._every:
                continue
            if made and made["step"] != row["step"]:
                yield made
                made = {}
            made |= {"stage": row["stage"], "step": row["step"], **values}
        if made:
            yield made

    def _add(self, run: Run, row: _Row, *, again: bool = False) -> None:
        """Writes a row at the end, `again` in place of the last one; a new column means writing the whole file."""
        path = run.path / self._name
        if new := [name for name in row if name not in self._columns]:
            refuse_link(path)
            before = list(csv.DictReader(io.StringIO(read_regular(path).decode(), newline="")))
            self._columns += new
            self._replace(run, [*(before[:-1] if again else before), row])
            return
        line = self._format([row])
        with open(path, "r+b", opener=open_own) as file:
            start = self._start if again else file.seek(0, io.SEEK_END)
            file.seek(start)
            file.write(line)
            file.truncate()
        self._last, self._start = row, start

    def _replace(self, run: Run, rows: list[_Row]) -> None:
        """Replaces the file by one with these rows."""
        path: Path = run.path / self._name
        refuse_link(path)
        head = self._format([dict(zip(self._columns, self._columns)), *rows[:-1]])
        replace_file(path, head + self._format(rows[-1:]))
        self._last, self._start = rows[-1] if rows else {}, len(head)

    def _format(self, rows: Iterable[_Row]) -> bytes:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(rows)
        return text.getvalue().encode()


def _name_scores(scores: Mapping[str, float]) -> dict[str, float]:
    return {f"scores/{name}": value for name, value in scores.items()}
