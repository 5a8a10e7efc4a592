"""A sweep: a spec over the product of some axes, each run and each evaluation in a process of its own.

    sweep("spec.yaml", ["model.sampler=ddim,heun", "seed=0,1,2"], "sweeps/samplers")

trains three runs, evaluates each with both samplers and writes `comparison.html` beside them. Started again after a
kill it continues: what is done is read from the runs and their reports, so a finished run is kept, an unfinished one
resumed, an evaluation made once. What fails is reported, and tried again at the next start; the other trials go on.
The directory's layout is that of `modkit.sweeps.directory`.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO, Any

from modkit.evaluation.report import Report, format_options, locate_report
from modkit.progress import Progress, Silent
from modkit.runs.run import Run
from modkit.specs.load import load_spec
from modkit.specs.spec import Spec
from modkit.sweeps.directory import FORMAT, hold, record
from modkit.sweeps.trials import Trial, freeze

__all__ = ["Failure", "Sweep", "sweep"]

_PAGE = "comparison.html"
_TAIL = 4000  # last characters of a failed process' stderr
_PAUSE = 0.05  # seconds between looks at the processes


@dataclass(frozen=True)
class Failure:
    """A process that failed.

    Args:
        run: Name of the run.
        trial: Label of the trial that was evaluated; None where the run was trained.
        command: What was run.
        status: Its exit status, negative where a signal ended it.
        stderr: The end of what it wrote there.
    """

    run: str
    trial: str | None
    command: str
    status: int
    stderr: str


@dataclass(frozen=True)
class Sweep:
    """A sweep that came to its end.

    Args:
        path: Its directory.
        trials: Its trials.
        failures: What failed, by run and trial.
        page: The comparison of the runs that were measured; None where there are none.
    """

    path: Path
    trials: tuple[Trial, ...]
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
    """Trains and evaluates a spec over the product of some axes, or continues with that.

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
        SpecError: With every problem of every trial; nothing has been written then.
        ValueError: If `jobs` is below 1, or the directory holds anything else, or a sweep of other trials.
    """
    if jobs < 1:
        raise ValueError(f"sweep expects jobs of at least 1, got {jobs}")
    spec = spec if isinstance(spec, Spec) else load_spec(spec)
    trials = freeze(spec, axes)
    path = Path(out) if out is not None else Path("sweeps") / spec.name
    options = {"num": num, "features": features, "metrics": [*(metrics or ())], "seed": seed}
    evaluation = {name: value for name, value in options.items() if value}
    asked = {
        "format": FORMAT,
        "steps": steps,
        "evaluation": evaluation,
        "runs": {trial.run: trial.spec for trial in trials},
        "trials": [{"label": trial.label, "run": trial.run, "sampling": [*trial.sampling]} for trial in trials],
    }
    shown = progress or Silent()
    with hold(path, shown) as lock:
        record(path, asked)
        work = _Work(path, trials, steps, evaluation, shown, lock, jobs)
        failures = work.run()
        measured = dict.fromkeys(path / "runs" / trial.run for trial in trials if work.evaluated(trial))
        if measured:
            from modkit.comparison import compare

            compare(list(measured), path / _PAGE)
    return Sweep(path, trials, failures, path / _PAGE if measured else None)


@dataclass
class _Child:
    """A process that trains a run, or evaluates one for a trial."""

    run: str
    trial: Trial | None
    arguments: list[str]
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]


@dataclass(frozen=True)
class _Work:
    """Trains what is not trained and evaluates what is not evaluated, until nothing is left.

    Args:
        path: The sweep's directory.
        trials: Its trials.
        steps: Cap of every stage of training, or None.
        evaluation: How a run is evaluated, as `Report.settings` says it.
        progress: Shows how far it is.
        lock: A descriptor that the processes inherit.
        jobs: Processes at a time.
    """

    path: Path
    trials: Sequence[Trial]
    steps: int | None
    evaluation: Mapping[str, Any]
    progress: Progress
    lock: int
    jobs: int

    def run(self) -> tuple[Failure, ...]:
        """Works, and returns what failed; ends its processes if it is interrupted."""
        runs = dict.fromkeys(trial.run for trial in self.trials)
        done = sum(map(self.trained, runs)) + sum(map(self.evaluated, self.trials))
        self.progress.stage("sweep", done, len(runs) + len(self.trials))
        waiting = deque(task for run in runs for task in self._missing(run))
        failures: list[Failure] = []
        working: list[_Child] = []
        try:
            while waiting or working:
                while waiting and len(working) < self.jobs:
                    working.append(self._start(*waiting.popleft()))
                ended = [child for child in working if child.process.poll() is not None]
                for child in ended:
                    working.remove(child)
                    if failure := self._failure(child):
                        failures.append(failure)
                    elif child.trial is None:  # a trained run is evaluated next
                        waiting.extendleft(reversed(self._missing(child.run)))
                    self.progress.step(None)
                if not ended:
                    time.sleep(_PAUSE)
        finally:
            for child in working:
                child.process.terminate()
            for child in working:
                child.process.wait()
                child.stderr.close()
        return tuple(sorted(failures, key=lambda failure: (failure.run, failure.trial or "")))

    def trained(self, run: str) -> bool:
        """Whether a run is finished."""
        try:
            return Run.open(self.path / "runs" / run).finished
        except ValueError:
            return False

    def evaluated(self, trial: Trial) -> bool:
        """Whether a trial's run is finished and keeps a report of it, made as this sweep asks."""
        try:
            report = Report.from_json(locate_report(self.path / "runs" / trial.run, trial.sampling).read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        return report.settings == self.evaluation and self.trained(trial.run)

    def _missing(self, run: str) -> list[tuple[str, Trial | None]]:
        """What is to be done next for a run: its training, or the evaluations that it lacks."""
        if not self.trained(run):
            return [(run, None)]
        return [(run, trial) for trial in self.trials if trial.run == run and not self.evaluated(trial)]

    def _start(self, run: str, trial: Trial | None) -> _Child:
        self.progress.note(f"evaluate {trial.label}" if trial else f"train {run}")
        folder = str(self.path / "runs" / run)
        if trial:
            arguments = ["evaluate", folder, *trial.sampling, *format_options(self.evaluation)]
        else:
            spec = str(self.path / "specs" / f"{run}.yaml")
            cap = [] if self.steps is None else ["--steps", str(self.steps)]
            arguments = ["train", spec, "--out", folder, "--resume", "--no-evaluate", *cap]
        stderr = tempfile.TemporaryFile()
        return _Child(run, trial, arguments, _launch(arguments, stderr, self.lock), stderr)

    def _failure(self, child: _Child) -> Failure | None:
        """What went wrong in a process that has ended, or None where it did what it was started for."""
        with child.stderr:
            child.stderr.seek(0)
            text = child.stderr.read().decode(errors="replace")[-_TAIL:]
        done = self.evaluated(child.trial) if child.trial else self.trained(child.run)
        if done and child.process.returncode == 0:
            return None
        command = shlex.join(["modkit", *child.arguments])
        self.progress.note(f"failed: {command}\n{text.strip()}")
        label = child.trial.label if child.trial else None
        return Failure(child.run, label, command, child.process.returncode, text)


def _launch(arguments: Sequence[str], stderr: IO[bytes], lock: int) -> subprocess.Popen[bytes]:
    """Starts `modkit ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "modkit", *arguments]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=stderr, pass_fds=[lock])
