"""The ledger: what a sweep's directory says is to be done, and what is done of it.

    sweep.json          the cells, the runs with their specs' hashes, how they are evaluated
    specs/NAME.yaml     the resolved spec of each run
    runs/NAME/          the runs, see `modkit.runs.run`
    progress.json       what was trained, the evaluations that were made, by their files' hashes, and what failed

Every file appears whole or not at all, `sweep.json` after the specs and before any run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modkit.errors import join
from modkit.evaluation.report import report_path
from modkit.progress import Progress
from modkit.runs.files import replace_file
from modkit.runs.run import Run
from modkit.specs.node import Node
from modkit.specs.spec import Spec
from modkit.specs.tree import walk
from modkit.sweeps.trials import Cell, Grid

__all__ = ["Failure", "Ledger", "alone"]

_FORMAT = 1
_SWEEP = "sweep.json"
_PROGRESS = "progress.json"
_LOCK = ".lock"
_TEMPORARY = re.compile(r"\..+\.tmp-[0-9]+")
_TOLD = 5  # differences that an error lists


@dataclass(frozen=True)
class Failure:
    """A process that failed.

    Args:
        run: Name of the run.
        cell: Label of the cell that was evaluated; None where the run was trained.
        command: What was run.
        status: Its exit status, negative where a signal ended it.
        stderr: The end of what it said.
    """

    run: str
    cell: str | None
    command: str
    status: int
    stderr: str


@dataclass
class Ledger:
    """What a sweep is to do, and has done.

    Args:
        path: Its directory.
        grid: Its cells.
        steps: Cap of every stage of training, or None.
        options: How a run is evaluated, as plain data.
    """

    path: Path
    grid: Grid
    steps: int | None
    options: Mapping[str, Any]
    _trained: set[str] = field(default_factory=set, init=False)
    _evaluated: dict[str, str] = field(default_factory=dict, init=False)
    _failures: dict[tuple[str, str], Failure] = field(default_factory=dict, init=False)

    def begin(self) -> None:
        """Writes down what is to be done, or finds what is done of it.

        Raises:
            ValueError: If the directory holds a sweep with another spec or cap, or with cells that this one lacks.
        """
        for folder in (self.path / "specs", self.path / "runs"):
            folder.mkdir(exist_ok=True)
        for folder in (
            self.path,
            self.path / "specs",
            *self.path.glob("runs/*"),
            *self.path.glob("runs/*/evaluations"),
        ):
            for entry in [found for found in folder.iterdir() if _TEMPORARY.fullmatch(found.name)]:
                entry.unlink()  # of a process that was killed: no other is at work
        if (self.path / _SWEEP).exists():
            before = _read(self.path / _SWEEP, "steps", "evaluation", "runs", "cells")
            self._check_same(before)
            if (self.path / _PROGRESS).exists():
                done = _read(self.path / _PROGRESS, "trained", "evaluated")
                self._trained, self._evaluated = set(done["trained"]), dict(done["evaluated"])
            if before["evaluation"] != dict(self.options):
                self._evaluated = {}
                self.save()
        for name, text in self.grid.specs.items():
            _write(self.spec(name), text)
        _write(self.path / _SWEEP, json.dumps(self._written(), indent=1))

    def spec(self, run: str) -> Path:
        """The file of a run's spec."""
        return self.path / "specs" / f"{run}.yaml"

    def run(self, run: str) -> Path:
        """A run's directory."""
        return self.path / "runs" / run

    def trained(self, run: str) -> bool:
        """Whether the training of a run, with all that it ends in, came to its end."""
        return run in self._trained and self._finished(run)

    def measured(self) -> list[Path]:
        """The finished runs that a report was made of."""
        reported = {cell.run for cell in self.grid.cells if self._digest(cell) is not None}
        return [self.run(run) for run in self.grid.specs if run in reported and self._finished(run)]

    def ended(self, run: str) -> bool:
        """Keeps that a training came to its end; False if its run is not finished."""
        if self._finished(run):
            self._trained.add(run)
            self.save()
        return self._finished(run)

    def evaluated(self, cell: Cell) -> bool:
        """Whether a cell's report is there, as this sweep had it made."""
        digest = self._digest(cell)
        return digest is not None and self._evaluated.get(cell.label) == digest

    def succeeded(self, cell: Cell) -> bool:
        """Keeps that a cell was evaluated; False if there is no report of it."""
        digest = self._digest(cell)
        if digest is not None:
            self._evaluated[cell.label] = digest
            self.save()
        return digest is not None

    def failed(self, failure: Failure) -> None:
        """Keeps a failure."""
        self._failures[failure.run, failure.cell or ""] = failure
        self.save()

    @property
    def failures(self) -> tuple[Failure, ...]:
        """What failed, by run and cell."""
        return tuple(self._failures[key] for key in sorted(self._failures))

    def save(self) -> None:
        """Writes down what is done."""
        kept = {
            "format": _FORMAT,
            "trained": sorted(self._trained),
            "evaluated": dict(sorted(self._evaluated.items())),
            "failures": [*map(asdict, self.failures)],
        }
        _write(self.path / _PROGRESS, json.dumps(kept, indent=1))

    def _finished(self, run: str) -> bool:
        try:
            return Run.open(self.run(run)).finished
        except ValueError:
            return False

    def _digest(self, cell: Cell) -> str | None:
        report = report_path(self.run(cell.run), cell.sampling)
        return _hash(report.read_bytes()) if report.exists() else None

    def _written(self) -> dict[str, Any]:
        cells = [
            {**asdict(cell), "training": [*cell.training], "sampling": [*cell.sampling]} for cell in self.grid.cells
        ]
        runs = {name: _hash(text.encode()) for name, text in self.grid.specs.items()}
        return {
            "format": _FORMAT,
            "steps": self.steps,
            "evaluation": dict(self.options),
            "runs": runs,
            "cells": cells,
        }

    def _check_same(self, before: Mapping[str, Any]) -> None:
        now = self._written()
        differences = []
        if before["steps"] != now["steps"]:
            differences.append(f"steps were {before['steps']}, are {now['steps']}")
        gone = [cell["label"] for cell in before["cells"] if cell not in now["cells"]]
        if gone:
            more = f" and {len(gone) - _TOLD} more" if len(gone) > _TOLD else ""
            differences.append(f"these axes do not give its {'; '.join(gone[:_TOLD])}{more}")
        for name, digest in before["runs"].items():
            if now["runs"].get(name, digest) != digest:
                differences += self._changes(name)
        if differences:
            told = ", ".join(dict.fromkeys(differences))
            raise ValueError(f"{self.path} holds another sweep: {told}; choose another directory by --out")

    def _changes(self, run: str) -> list[str]:
        """What differs between a run's spec as it was frozen and as it would be now."""
        before = _scalars(self.spec(run).read_text()) if self.spec(run).exists() else {}
        now = _scalars(self.grid.specs[run])
        paths = [path for path in {**before, **now} if before.get(path) != now.get(path)] if before else []
        told = [f"{path} was {before.get(path)}, is {now.get(path)}" for path in paths[:_TOLD]]
        return told + [f"and {len(paths) - _TOLD} more"][: len(paths) > _TOLD] or [f"{run} had another spec"]


@contextmanager
def alone(path: Path, progress: Progress) -> Iterator[int]:
    """Makes a sweep's directory and holds it; gives the descriptor of a lock.

    Processes that inherit the descriptor hold the directory, too: a sweep that was killed, but whose training still
    runs, is waited for.

    Args:
        path: The directory.
        progress: Told when there is something to wait for.

    Raises:
        ValueError: If it is a file, or holds anything but a sweep.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"a sweep expects a directory, got the file {path}")
    path.mkdir(parents=True, exist_ok=True)
    found = {entry.name for entry in path.iterdir() if not _TEMPORARY.fullmatch(entry.name)}
    other = sorted(found - {_LOCK, "specs", "runs"})
    if other and _SWEEP not in found:
        raise ValueError(f"a sweep expects an empty directory or a sweep, got {path} with {', '.join(other[:_TOLD])}")
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.note(f"waiting for a process that another sweep has started in {path}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def _read(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object that `_write` wrote.

    Raises:
        ValueError: If it is something else.
    """
    try:
        found = json.loads(path.read_bytes())
        if found["format"] != _FORMAT or not all(isinstance(found[key], dict | list | int | None) for key in keys):
            raise ValueError(f"expected format {_FORMAT}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    return dict(found)


def _write(path: Path, text: str) -> None:
    if not path.exists() or path.read_bytes() != text.encode():
        replace_file(path, text.encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _scalars(text: str) -> dict[str, Any]:
    """Everything in a spec that is no mapping, by its path."""
    return {join(path): value for path, value in walk(Spec.from_yaml(text).tree) if not isinstance(value, Node)}
