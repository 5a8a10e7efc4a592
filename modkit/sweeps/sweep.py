"""Sweeps: a spec over the product of some axes, each run and each evaluation in a process of its own.

    sweep("spec.yaml", ["model.sampler=ddim,heun", "seed=0,1,2"], "sweeps/samplers")

trains three runs, evaluates each with both samplers and writes `comparison.html` beside them. Started again after a
kill it goes on: a finished run is kept, an unfinished one resumed, an evaluation made once. What fails is recorded, and
tried again at the next start; the other cells go on. The directory's layout is that of `modkit.sweeps.ledger`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO

from modkit.progress import Progress, Silent
from modkit.specs.load import load_spec
from modkit.specs.spec import Spec
from modkit.sweeps.ledger import Failure, Ledger, alone
from modkit.sweeps.trials import Cell, freeze

__all__ = ["Failure", "Sweep", "sweep"]

_PAGE = "comparison.html"
_TAIL = 4000  # characters of what a failed process said last
_PAUSE = 0.05  # seconds between looks at the processes


@dataclass(frozen=True)
class Sweep:
    """A sweep that came to its end.

    Args:
        path: Its directory.
        cells: Its cells.
        failures: What failed.
        page: The comparison of the runs that were measured; None where there are none.
    """

    path: Path
    cells: tuple[Cell, ...]
    failures: tuple[Failure, ...]
    page: Path | None


def sweep(
    spec: Spec | str | PathLike[str],
    axes: Sequence[str],
    out: str | PathLike[str] | None = None,
    *,
    num: int | None = None,
    features: str | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    steps: int | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Sweep:
    """Trains and evaluates a spec over the product of some axes, or goes on with that.

    A sweep may be started again with more values. Started with another `num`, `features`, `metrics` or `seed` it
    evaluates anew and trains nothing twice.

    Args:
        spec: The spec, or its file.
        axes: `path=a,b,c`; see `modkit.sweeps.trials.freeze`.
        out: The sweep's directory; `sweeps/NAME` where not given.
        num: Samples of an evaluation on each side; its default where not given.
        features: Name of an evaluation's features; its default where not given.
        metrics: Names of an evaluation's metrics; its default where not given.
        seed: Seed of an evaluation's noise.
        steps: Caps every stage of training at so many steps.
        jobs: Processes at a time; figures of speed want 1.
        progress: Shows how far it is.

    Raises:
        SpecError: With every problem of every cell; nothing has been written then.
        ValueError: If `jobs` is below 1, or the directory holds anything else, or a sweep of other cells.
    """
    if jobs < 1:
        raise ValueError(f"sweep expects jobs of at least 1, got {jobs}")
    spec = spec if isinstance(spec, Spec) else load_spec(spec)
    grid = freeze(spec, axes)
    path = Path(out) if out is not None else Path("sweeps") / spec.name
    names = list(metrics) if metrics is not None else None
    ledger = Ledger(path, grid, steps, {"num": num, "features": features, "metrics": names, "seed": seed})
    shown = progress or Silent()
    with alone(path, shown) as lock:
        ledger.begin()
        _Work(ledger, shown, lock, jobs).run()
        ledger.save()
        measured = ledger.measured()
        if measured:
            from modkit.comparison import compare

            compare(measured, path / _PAGE)
    return Sweep(path, grid.cells, ledger.failures, path / _PAGE if measured else None)


@dataclass(frozen=True)
class _Task:
    """A run to train, or one of its cells to evaluate.

    Args:
        run: Name of the run.
        cell: The cell; None to train.
        arguments: Of the command line.
    """

    run: str
    cell: Cell | None
    arguments: list[str]


@dataclass
class _Child:
    """A task at work."""

    task: _Task
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]


class _Work:
    """Trains what is not trained and evaluates what is not evaluated, until nothing is left.

    Args:
        ledger: What is to be done.
        progress: Shows how far it is.
        lock: A descriptor that the processes inherit.
        jobs: Processes at a time.
    """

    def __init__(self, ledger: Ledger, progress: Progress, lock: int, jobs: int) -> None:
        self._ledger, self._progress, self._lock, self._jobs = ledger, progress, lock, jobs
        self._waiting: deque[_Task] = deque()

    def run(self) -> None:
        """Works; ends its processes if it is interrupted."""
        names, cells = self._ledger.grid.specs, self._ledger.grid.cells
        untrained = [name for name in names if not self._ledger.trained(name)]
        for name in names:
            self._waiting.extend([self._training(name)] if name in untrained else self._evaluations(name))
        left = len(self._waiting) + sum(cell.run in untrained for cell in cells)
        total = len(names) + len(cells)
        self._progress.stage("sweep", total - left, total)
        working: list[_Child] = []
        try:
            while self._waiting or working:
                while self._waiting and len(working) < self._jobs:
                    working.append(self._started(self._waiting.popleft()))
                ended = [child for child in working if child.process.poll() is not None]
                for child in ended:
                    working.remove(child)
                    self._end(child)
                if not ended:
                    time.sleep(_PAUSE)
        finally:
            for child in working:
                child.process.terminate()
            for child in working:
                child.process.wait()
                child.stderr.close()

    def _training(self, run: str) -> _Task:
        ledger = self._ledger
        cap = [] if ledger.steps is None else ["--steps", str(ledger.steps)]
        return _Task(
            run,
            None,
            ["train", str(ledger.spec(run)), "--out", str(ledger.run(run)), "--resume", "--no-evaluate", *cap],
        )

    def _evaluations(self, run: str) -> list[_Task]:
        ledger, options = self._ledger, self._ledger.options
        metrics = None if options["metrics"] is None else ",".join(options["metrics"])
        given = {"-n": options["num"], "--features": options["features"], "--metrics": metrics}
        flags = [text for flag, value in given.items() if value is not None for text in (flag, str(value))]
        flags += ["--seed", str(options["seed"])]
        cells = [cell for cell in ledger.grid.cells if cell.run == run and not ledger.evaluated(cell)]
        return [_Task(run, cell, ["evaluate", str(ledger.run(run)), *cell.sampling, *flags]) for cell in cells]

    def _started(self, task: _Task) -> _Child:
        self._progress.note(f"evaluate {task.cell.label}" if task.cell else f"train {task.run}")
        stderr = tempfile.TemporaryFile()
        return _Child(task, _launched(task.arguments, stderr, self._lock), stderr)

    def _end(self, child: _Child) -> None:
        """Keeps what came of a task; a trained run is evaluated next."""
        task, status = child.task, child.process.returncode
        with child.stderr:
            child.stderr.seek(0)
            said = child.stderr.read().decode(errors="replace")[-_TAIL:]
        done = status == 0 and (self._ledger.succeeded(task.cell) if task.cell else self._ledger.ended(task.run))
        if done and task.cell is None:
            self._waiting.extendleft(reversed(self._evaluations(task.run)))
        elif not done:
            command = shlex.join(["modkit", *task.arguments])
            self._ledger.failed(Failure(task.run, task.cell.label if task.cell else None, command, status, said))
            self._progress.note(f"failed: {command}\n{said.strip()}")
        self._progress.step(None)


def _launched(arguments: Sequence[str], stderr: IO[bytes], lock: int) -> subprocess.Popen[bytes]:
    """`modkit ARGUMENTS` at work in a process of its own."""
    command = [sys.executable, "-m", "modkit", *arguments]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=stderr, pass_fds=[lock])
