"""Sweeps in forks of this process, so that torch is imported once, killed at an instant that is asked for.

A request is a line of JSON: the arguments of `modkit.sweep`, how many files stand in its directory when it is killed,
or null, and whether the processes that it started die with it. The answer is the sweep's exit status.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch

import modkit.comparison
import modkit.sweeps.sweep
from modkit.cli.app import main
from modkit.evaluation.report import saved_reports
from modkit.specs.load import load_spec
from modkit.sweeps.trials import freeze


class Fork:
    """A fork, as `subprocess.Popen` shows a process."""

    def __init__(self, work: Callable[[], int]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            status = 99
            try:
                status = work()
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(status)

    def poll(self) -> int | None:
        """The exit status, once it is there."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        """The exit status."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def terminate(self) -> None:
        """Asks it to end."""
        os.kill(self.pid, signal.SIGTERM)


def command(arguments: Sequence[str]) -> int:
    """The exit status of `modkit ARGUMENTS`."""
    sys.argv = ["modkit", *arguments]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def launched(arguments: Sequence[str], stderr: IO[bytes], lock: int) -> Fork:
    """Stands for `modkit.sweeps.sweep._launched`; a fork holds the lock by itself."""

    def work() -> int:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(stderr.fileno(), 2)
        return command(arguments)

    return Fork(work)


def listed(runs: Sequence[Path], out: Path) -> None:
    """Stands for `modkit.comparison.compare`: which runs and reports it is given."""
    given = {run.name: [report.to_json() for report in saved_reports(run)] for run in runs}
    out.write_text(json.dumps(given))


def sweep(arguments: dict[str, Any], fatal: int | None, whole: bool) -> int:
    """The exit status of a sweep in a fork, ended when so many files are there."""

    def work() -> int:
        os.dup2(2, 1)
        modkit.sweeps.sweep._launched = launched  # type: ignore[assignment]
        modkit.comparison.compare = listed  # type: ignore[assignment]
        return 1 if modkit.sweeps.sweep.sweep(**arguments).failures else 0

    fork = Fork(work)
    os.setpgid(fork.pid, fork.pid)
    while fork.poll() is None:
        if fatal is not None and sum(len(files) for *_, files in os.walk(arguments["out"])) >= fatal:
            (os.killpg if whole else os.kill)(fork.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    return fork.wait()


if __name__ == "__main__":
    torch.set_num_threads(1)
    warm = json.loads(sys.stdin.readline())
    freeze(load_spec(warm["spec"]), warm["axes"])  # imports what every fork needs
    for line in sys.stdin:
        print(json.dumps(sweep(**json.loads(line))), flush=True)
