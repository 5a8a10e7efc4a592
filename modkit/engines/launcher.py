"""Starts the processes of a command on this machine, as torchrun does on any number of machines."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from modkit.child import MODKIT, write_command

__all__ = ["SIGNALS", "launch"]

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]
"""The signals that ask a process to stop which has started others; Windows lacks some."""
_PATIENCE = 10.0  # seconds in which the others end by themselves after one has failed


def launch(command: Sequence[str], num: int) -> int:
    """Runs a command of modkit in several processes, and waits for them; if one fails, the others are ended.

    A signal that asks this process to stop is passed on, so that they stop after the step at hand.

    Args:
        command: The words behind `modkit`.
        num: Number of processes.

    Returns:
        The exit status: 0, or that of the process that failed first; 1 if a signal killed it.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # theirs: it outlives each of them
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(num)}
    told |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}  # as torchrun says it
    started: list[subprocess.Popen[bytes]] = []
    with _pass_signals(started):
        for rank in range(num):
            environment = {**os.environ, **told, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            words = write_command(MODKIT, *command)
            # a session of its own, since a terminal would send Ctrl-C to it as well
            started.append(subprocess.Popen(words, env=environment, start_new_session=True))
        return _await_all(started)


def _await_all(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits until all processes have ended; returns the first status that is not 0."""
    first, until = 0, 0.0
    while any(status is None for status in [one.poll() for one in started]):
        time.sleep(0.1)
        if not first:
            first, until = _find_failure(started), time.monotonic() + _PATIENCE
        elif time.monotonic() > until:
            for one in started:
                one.kill()
    return first or _find_failure(started)


def _find_failure(started: Sequence[subprocess.Popen[bytes]]) -> int:
    """The exit status of a process that has failed, 1 if a signal killed it; 0 if there is none."""
    return next((one.returncode if one.returncode > 0 else 1 for one in started if one.returncode), 0)


@contextmanager
def _pass_signals(started: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Passes signals that ask this process to stop on to those that it has started."""

    def send(number: int, frame: FrameType | None) -> None:
        for one in started:
            one.send_signal(number)

    before = {number: signal.signal(number, send) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
