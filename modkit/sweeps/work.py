"""The work of a sweep: its processes, each of which trains a run or evaluates one for a trial."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from modkit.child import Fork
from modkit.engines.launcher import SIGNALS
from modkit.evaluation.report import find_report
from modkit.progress import Progress
from modkit.runs.run import Run
from modkit.sweeps.devices import list_devices, share_devices
from modkit.sweeps.directory import FORMAT, extend
from modkit.sweeps.source import TrialSource
from modkit.sweeps.trials import Trial

__all__ = ["Failure", "Start", "Work"]

_Process: TypeAlias = "subprocess.Popen[bytes] | Fork"
_Task: TypeAlias = "tuple[str, Trial | None]"
Start: TypeAlias = "Callable[..., tuple[str, _Process]]"
"""Starts the training of a run, or its evaluation for a trial; returns the command line and the process."""

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


@dataclass
class _Child:
    """A process that trains a run, or evaluates one for a trial."""

    run: str
    trial: Trial | None
    slot: int
    command: str
    process: _Process
    stderr: IO[bytes]
    pruned: bool = False


@dataclass(frozen=True)
class Work:
    """Trains and evaluates everything that is still missing.

    Args:
        path: The sweep's directory.
        trials: Its trials; the source adds further ones.
        source: Names further trials, and runs that are not worth their training.
        start: Starts the training of a run, or its evaluation for a trial.
        steps: The cap on the steps of training.
        evaluation: Options of the evaluations, in the form of `Report.settings`.
        progress: Shows the progress of the sweep.
        lock: A descriptor that the processes inherit.
        jobs: Number of parallel processes.
    """

    path: Path
    trials: list[Trial]
    source: TrialSource
    start: Start
    steps: int | None
    evaluation: Mapping[str, Any]
    progress: Progress
    lock: int
    jobs: int

    @property
    def description(self) -> dict[str, Any]:
        """What the sweep consists of, see `modkit.sweeps.directory`."""
        return {
            "format": FORMAT,
            "steps": self.steps,
            "evaluation": self.evaluation,
            "runs": {trial.run: trial.spec for trial in self.trials},
            "trials": [{"label": one.label, "run": one.run, "sampling": [*one.sampling]} for one in self.trials],
        }

    def run(self) -> tuple[Failure, ...]:
        """Runs all processes and returns the failures; ends its processes if it is interrupted, also by a signal."""
        with _catch_termination() as asked:
            return self._run(asked)

    def _run(self, asked: Sequence[int]) -> tuple[Failure, ...]:
        runs = dict.fromkeys(trial.run for trial in self.trials)
        self.progress.begin_stage("sweep", sum(map(self.is_evaluated, self.trials)), self.source.num)
        waiting = deque(task for run in runs for task in self._list_missing(run, self.trials))
        devices = list_devices()
        failures: list[Failure] = []
        working: list[_Child] = []
        try:
            while not asked and (self._ask(waiting, working) or working):
                while waiting and len(working) < self.jobs:
                    slot = min({*range(self.jobs)} - {child.slot for child in working})
                    working.append(self._start(*waiting.popleft(), slot, share_devices(devices, slot, self.jobs)))
                for child in working:
                    if child.trial is None and not child.pruned and self.source.is_pruned(child.run):
                        child.pruned = True
                        child.process.terminate()
                ended = [child for child in working if child.process.poll() is not None]
                for child in ended:
                    working.remove(child)
                    if failure := self._find_failure(child):
                        failures.append(failure)
                    elif child.trial is None and self.is_trained(child.run):  # evaluate it next
                        waiting.extendleft(reversed(self._list_missing(child.run, self.trials)))
                    if child.trial:
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

    def _ask(self, waiting: deque[_Task], working: Sequence[_Child]) -> bool:
        """Asks for trials while fewer are pending than there are jobs; tells whether a task waits."""
        while True:
            tasks = [*waiting, *((child.run, child.trial) for child in working)]
            pending = [one for one in self.trials if (one.run, one) in tasks or (one.run, None) in tasks]
            if len(pending) >= self.jobs or (trial := self.source.ask(pending)) is None:
                return bool(waiting)
            self.trials.append(trial)
            extend(self.path, self.description)
            waiting.extend(task for task in self._list_missing(trial.run, [trial]) if task not in tasks)

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

    def _list_missing(self, run: str, trials: Sequence[Trial]) -> list[_Task]:
        """Lists the next tasks for a run: its training, or an evaluation for each of the trials that lacks one."""
        if not self.is_trained(run):
            return [] if self.source.is_pruned(run) else [(run, None)]
        return [(run, trial) for trial in trials if trial.run == run and not self.is_evaluated(trial)]

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
        if child.pruned or done and child.process.returncode == 0:
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
