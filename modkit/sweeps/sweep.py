"""A sweep: trains and evaluates a spec for all combinations of values, each run and evaluation in its own process.

    sweep("spec.yaml", ["model.sampler=ddim,heun", "seed=0,1,2"], "sweeps/samplers")

trains three runs, evaluates each with both samplers and writes `comparison.html` into the same directory. So does

    sweep(make_model, {"width": [32, 64], "seed": [0, 1]}, "sweeps/widths", data=partial(Digits, size=8))

with four runs of models that a function composes, each in a forked process (`modkit.sweeps.factory`). A sweep that
was killed continues when it is started again: it keeps finished runs and their evaluations and resumes unfinished runs.
Failures are reported and retried at the next start; the other trials continue. `modkit.sweeps.directory` describes the
files.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, TypeAlias

from modkit.child import MODKIT, Fork, write_command
from modkit.engines.launcher import SIGNALS
from modkit.evaluation.extractors import find_features
from modkit.evaluation.report import find_report, format_options
from modkit.evaluation.scoring import make_metrics
from modkit.models.model import Model
from modkit.progress import Progress, show_progress
from modkit.runs.run import Run
from modkit.specs.load import load_spec
from modkit.specs.spec import Spec
from modkit.sweeps.devices import list_devices, share_devices
from modkit.sweeps.directory import FORMAT, hold, record
from modkit.sweeps.factory import freeze_factory, name_factory, start_fork
from modkit.sweeps.trials import Trial, freeze
from modkit.types import PositiveInt, checked

__all__ = ["Failure", "Sweep", "sweep"]

_Process: TypeAlias = "subprocess.Popen[bytes] | Fork"
_Start: TypeAlias = "Callable[..., tuple[str, _Process]]"
_PAGE = "comparison.html"
_TAIL = 4000  # number of last characters of a failed process's stderr
_PAUSE = 0.05  # seconds between checks of the processes


@dataclass(frozen=True)
class Failure:
    """A failed process.

    Args:
        run: Name of the run.
        trial: Label of the trial that was evaluated; None if the run was trained.
        command: The command line, or the call in a forked process.
        status: Its exit status; negative if a signal ended the process.
        stderr: The end of its error output.
    """

    run: str
    trial: str | None
    command: str
    status: int
    stderr: str


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep.

    Args:
        path: Its directory.
        trials: Its trials.
        failures: The processes that failed, by run and trial.
        page: The comparison of the evaluated runs; None if there are none.
    """

    path: Path
    trials: tuple[Trial, ...]
    failures: tuple[Failure, ...]
    page: Path | None


@checked
def sweep(
    spec: Spec | str | PathLike[str] | Callable[..., Model],
    axes: Sequence[str] | Mapping[str, Sequence[Any]],
    out: str | PathLike[str] | None = None,
    *,
    data: Any = None,
    train: Mapping[str, Any] = MappingProxyType({}),
    num: int | None = None,
    features: str | None = None,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    steps: int | None = None,
    jobs: PositiveInt = 1,
    progress: Progress | None = None,
) -> Sweep:
    """Trains and evaluates a spec or a composed model for all combinations of values, or continues to do so.

    A sweep may be started again with more values. With a different `num`, `features`, `metrics` or `seed` it repeats
    the evaluations, but not the training.

    Args:
        spec: The spec, or its file; or a function that composes a model. Its runs are trained and evaluated in forks of
            this process, each with one thread of the CPU.
        axes: `path=a,b,c`; see `modkit.sweeps.trials.freeze`. For a function, lists of values by the names of its
            parameters and of settings of training, such as `seed`.
        out: The sweep's directory; `sweeps/NAME` by default.
        data: The training data for a function, as in `fit`.
        train: The settings of training for a function, as in `fit`.
        num: Number of samples on each side of an evaluation; the default of `evaluate_run` if None.
        features: Name of the features in evaluations; the default of `evaluate_run` if None.
        metrics: Names of the metrics in evaluations; the default of `evaluate_run` if None.
        seed: Seed of the evaluations.
        steps: Caps every stage of the training of a spec at this many steps.
        jobs: Number of parallel processes, each with GPUs of its own if there are as many; use 1 if speed is measured.
        progress: Shows the progress of the sweep; by default in a terminal or a notebook.

    Raises:
        SpecError: With all problems of all trials; nothing is written in this case.
        ValueError: If `jobs` is below 1, the features or a metric are unknown, the directory holds a different sweep or
            anything else, an argument is for a spec and not for a function or the other way round, or this process has
            used CUDA, which no fork can use then.

    Examples:
        >>> from modkit import Spec, sweep, use
        >>> spec = Spec(name="ring", model=use("gan"), data=use("ring"))
        >>> sweep(spec, ["seed=0,1", "model.z_dim=four,8"])
        Traceback (most recent call last):
        modkit.errors.SpecError: ...
        >>> sweep(spec, ["seed=0,1", "model.z_dim=4,8"], jobs=2).failures  # doctest: +SKIP
        ()
    """
    trials: Sequence[Trial]
    models: Mapping[str, Callable[[], Model]] = {}
    if callable(spec) and isinstance(axes, Mapping) and data is not None and steps is None:
        composed = freeze_factory(spec, axes, data, train)
        name, trials, models = name_factory(spec), composed, {one.run: one.make for one in composed}
        start: _Start = partial(start_fork, composed, data)
    elif not callable(spec) and not isinstance(axes, Mapping) and data is None and not train:
        spec = spec if isinstance(spec, Spec) else load_spec(spec)
        name, trials, start = spec.name, freeze(spec, axes), partial(_start_command, steps)
    else:
        raise ValueError(
            "sweep expects a spec and a list of axes, or a function that composes models, lists of values by name and "
            f"`data`, with the number of steps in `train`; got {type(spec).__name__}, {type(axes).__name__}, "
            f"{'no' if data is None else 'some'} data and steps={steps}"
        )
    make_metrics(metrics or ())  # an unknown name is told before anything is trained
    if features:
        find_features(features)
    path = Path(out) if out is not None else Path("sweeps") / name
    options = {"num": num, "features": features, "metrics": [*(metrics or ())], "seed": seed}
    evaluation = {name: value for name, value in options.items() if value}
    description = {
        "format": FORMAT,
        "steps": steps,
        "evaluation": evaluation,
        "runs": {trial.run: trial.spec for trial in trials},
        "trials": [{"label": trial.label, "run": trial.run, "sampling": [*trial.sampling]} for trial in trials],
    }
    with show_progress(progress) as shown, hold(path, shown) as lock:
        record(path, description)
        work = _Work(path, trials, start, evaluation, shown, lock, jobs)
        failures = work.run()
        measured = dict.fromkeys(path / "runs" / trial.run for trial in trials if work.is_evaluated(trial))
        if measured:
            from modkit.comparison import compare

            given = {folder: models[folder.name] for folder in measured if folder.name in models}
            compare(list(measured), path / _PAGE, models=given, data=dict.fromkeys(given, data))
    return Sweep(path, tuple(trials), failures, path / _PAGE if measured else None)


@dataclass
class _Child:
    """A process that trains a run, or evaluates one for a trial."""

    run: str
    trial: Trial | None
    slot: int
    command: str
    process: _Process
    stderr: IO[bytes]


@dataclass(frozen=True)
class _Work:
    """Trains and evaluates everything that is still missing.

    Args:
        path: The sweep's directory.
        trials: Its trials.
        start: Starts the training of a run, or its evaluation for a trial.
        evaluation: Options of the evaluations, in the form of `Report.settings`.
        progress: Shows the progress of the sweep.
        lock: A descriptor that the processes inherit.
        jobs: Number of parallel processes.
    """

    path: Path
    trials: Sequence[Trial]
    start: _Start
    evaluation: Mapping[str, Any]
    progress: Progress
    lock: int
    jobs: int

    def run(self) -> tuple[Failure, ...]:
        """Runs all processes and returns the failures; ends its processes if it is interrupted, also by a signal."""
        with _catch_termination() as asked:
            return self._run(asked)

    def _run(self, asked: Sequence[int]) -> tuple[Failure, ...]:
        runs = dict.fromkeys(trial.run for trial in self.trials)
        done = sum(map(self.is_trained, runs)) + sum(map(self.is_evaluated, self.trials))
        self.progress.begin_stage("sweep", done, len(runs) + len(self.trials))
        waiting = deque(task for run in runs for task in self._list_missing(run))
        devices = list_devices()
        failures: list[Failure] = []
        working: list[_Child] = []
        try:
            while (waiting or working) and not asked:
                while waiting and len(working) < self.jobs:
                    slot = min({*range(self.jobs)} - {child.slot for child in working})
                    working.append(self._start(*waiting.popleft(), slot, share_devices(devices, slot, self.jobs)))
                ended = [child for child in working if child.process.poll() is not None]
                for child in ended:
                    working.remove(child)
                    if failure := self._find_failure(child):
                        failures.append(failure)
                    elif child.trial is None:  # the run is trained: evaluate it next
                        waiting.extendleft(reversed(self._list_missing(child.run)))
                    self.progress.step(None)
                if not ended:
                    time.sleep(_PAUSE)
            if asked:
                raise SystemExit(128 + asked[0])
        finally:
            for child in working:
                child.process.terminate()
            for child in working:
                child.process.wait()
                child.stderr.close()
        return tuple(sorted(failures, key=lambda failure: (failure.run, failure.trial or "")))

    def is_trained(self, run: str) -> bool:
        """Tells whether a run is finished."""
        try:
            return Run.open(self.path / "runs" / run).finished
        except ValueError:
            return False

    def is_evaluated(self, trial: Trial) -> bool:
        """Tells whether a trial's run is finished and has a report of its end with this sweep's options."""
        try:
            run = Run.open(self.path / "runs" / trial.run)
            report = find_report(run, trial.sampling, checkpoint=run.find_checkpoint_name())
        except (FileNotFoundError, ValueError):
            return False
        return run.finished and report is not None and report.settings == self.evaluation

    def _list_missing(self, run: str) -> list[tuple[str, Trial | None]]:
        """Lists the next tasks for a run: its training, or the evaluations that it lacks."""
        if not self.is_trained(run):
            return [(run, None)]
        return [(run, trial) for trial in self.trials if trial.run == run and not self.is_evaluated(trial)]

    def _start(self, run: str, trial: Trial | None, slot: int, variables: Mapping[str, str]) -> _Child:
        self.progress.note(f"evaluate {trial.label}" if trial else f"train {run}")
        stderr = tempfile.TemporaryFile()
        command, process = self.start(self.path, self.evaluation, run, trial, stderr, self.lock, variables)
        return _Child(run, trial, slot, command, process, stderr)

    def _find_failure(self, child: _Child) -> Failure | None:
        """Returns the failure of a process that has ended, or None if it succeeded."""
        with child.stderr:
            child.stderr.seek(0)
            text = child.stderr.read().decode(errors="replace")[-_TAIL:]
        done = self.is_evaluated(child.trial) if child.trial else self.is_trained(child.run)
        if done and child.process.returncode == 0:
            return None
        self.progress.note(f"failed: {child.command}\n{text.strip()}")
        label = child.trial.label if child.trial else None
        return Failure(child.run, label, child.command, child.process.returncode, text)


@contextmanager
def _catch_termination() -> Iterator[list[int]]:
    """Lists the signals received that would otherwise end this process and leave those that it has started.

    Ctrl-C stays `KeyboardInterrupt`, and what is ignored, as `nohup` has SIGHUP, stays so.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # only that one can handle signals
        yield asked
        return
    caught = [one for one in SIGNALS if one != signal.SIGINT and signal.getsignal(one) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda number, _: asked.append(number)) for number in caught}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _start_command(
    steps: int | None,
    path: Path,
    evaluation: Mapping[str, Any],
    run: str,
    trial: Trial | None,
    stderr: IO[bytes],
    lock: int,
    variables: Mapping[str, str],
) -> tuple[str, _Process]:
    """Starts the command that trains a run of a sweep, or evaluates it for a trial."""
    folder = str(path / "runs" / run)
    if trial:
        arguments = ["evaluate", folder, *trial.sampling, *format_options(evaluation)]
    else:
        cap = [] if steps is None else ["--steps", str(steps)]
        spec = str(path / "specs" / f"{run}.yaml")
        arguments = ["train", spec, "--out", folder, "--resume", "--no-evaluate", *cap]
    return shlex.join(["modkit", *arguments]), _launch(arguments, stderr, lock, variables)


def _launch(
    arguments: Sequence[str], stderr: IO[bytes], lock: int, variables: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Starts `modkit ARGUMENTS` in a new process."""
    command = write_command(MODKIT, *arguments)
    quiet = subprocess.DEVNULL
    environment = {**os.environ, **variables}
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=stderr, pass_fds=[lock], env=environment)
