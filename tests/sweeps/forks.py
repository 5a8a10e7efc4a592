"""Sweeps in processes of their own that can be killed, forks as are those that they start."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import modkit.comparison
import modkit.sweeps.sweep
from modkit.cli.app import main
from modkit.evaluation.report import read_reports
from modkit.sweeps.sweep import sweep
from tests.forks import server

SPEC = """
name: tiny
data: {use: digits, size: 8}
model:
  use: diffusion
  network: {use: mlp, width: 8, depth: 1}
  sampler: {use: ddim, steps: 2}
train: {batch_size: 64, steps: 2, samples: {num: 4}, checkpoints: {every: 1}}
"""


def start_sweep(
    arguments: dict[str, Any], fatal: int | None = None, whole: bool = True, act: Callable[..., Any] = sweep
) -> int | None:
    """The exit status of a sweep that is killed at `fatal` files in its directory, with its processes if `whole`."""
    process = server().Process(target=_carry_out, args=(act, arguments))
    process.start()
    while process.is_alive() and os.getpgid(process.pid) != process.pid:  # until it can be killed with its processes
        time.sleep(0.002)
    while process.is_alive():
        if fatal is not None and sum(len(files) for *_, files in os.walk(arguments["out"])) >= fatal:
            (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    process.join()
    return process.exitcode


def _carry_out(act: Callable[..., Any], arguments: dict[str, Any]) -> None:
    os.setpgrp()
    modkit.sweeps.sweep._launch = Child  # type: ignore[assignment]
    modkit.comparison.compare = _list  # type: ignore[assignment]
    done = act(**arguments)
    sys.exit(bool(getattr(done, "sweep", done).failures))


class Child:
    """A fork that is the command line, as `subprocess.Popen` shows a process; it holds the lock by itself."""

    def __init__(self, arguments: Sequence[str], stderr: IO[bytes], lock: int, *_: Any) -> None:
        held = os.dup(lock)  # as `pass_fds` passes the lock on: a fork closes the original
        self._process = multiprocessing.get_context("fork").Process(target=_command, args=(arguments, stderr))
        self._process.start()
        os.close(held)
        self.terminate, self.wait = self._process.terminate, self._process.join

    def poll(self) -> int | None:
        return self._process.exitcode

    returncode = property(poll)


def _command(arguments: Sequence[str], stderr: IO[bytes]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(stderr.fileno(), 2)
    sys.argv = ["modkit", *arguments]
    main()


def _list(runs: Sequence[Path], out: Path, **_: Any) -> None:
    """Stands for `modkit.comparison.compare`: writes which runs and reports it is given."""
    out.write_text(json.dumps({run.name: [report.to_json() for report in read_reports(run)] for run in runs}))
