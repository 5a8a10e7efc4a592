"""Child processes: each imports what this process would, and nothing from the folder in which it works.

`python -m` and `python -c` put the working folder first on `sys.path`, so that a `json.py` there, a user's own or a
stranger's, takes the place of the standard library's. `-P` would prevent that, but Python 3.10 lacks it; `-I` would
ignore PYTHONPATH as well. Hence a child's first statement sets its path, before anything is imported.

A fork is for what no file holds, such as classes of a script. It has no threads of this process and cannot use CUDA if
this process has.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import IO

__all__ = ["MODKIT", "Fork", "write_command"]

MODKIT = "from modkit.cli.app import main; main()"
"""The code of the command line."""
_START = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n')"  # sys is compiled in: no file takes its place


def write_command(code: str, *arguments: str) -> list[str]:
    r"""Writes the command that runs code in a new Python, with this process's `sys.path` less the working folder.

    Args:
        code: What it runs.
        arguments: What follows in its `sys.argv`.

    Examples:
        >>> import subprocess
        >>> subprocess.run(write_command("print(sys.argv)", "a", "b"), capture_output=True, text=True).stdout
        "['-c', 'a', 'b']\n"
    """
    path = "\n".join(entry for entry in sys.path if entry)  # an empty entry is the working folder
    return [sys.executable, "-c", f"{_START}\n{code}", path, *arguments]


class Fork:
    """A fork of this process, which does one thing; it has the members of `subprocess.Popen` that a sweep reads.

    Args:
        act: What it does.
        stderr: Where it writes what it says and the error that ends it.
        lock: The descriptor of a lock, which it keeps.
        variables: Additions to its environment.
    """

    def __init__(self, act: Callable[[], object], stderr: IO[bytes], lock: int, variables: Mapping[str, str]) -> None:
        kept = os.dup(lock)  # a fork closes the original
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # until it has no handlers of this one
        given = (act, stderr, variables, mask)
        self._process = multiprocessing.get_context("fork").Process(target=_execute, args=given)
        self._process.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(kept)

    @property
    def returncode(self) -> int:
        """Its exit status once it has ended; negative if a signal ended it."""
        return self._process.exitcode or 0

    def poll(self) -> int | None:
        """Returns the exit status, None while it runs."""
        return self._process.exitcode

    def terminate(self) -> None:
        """Ends it by a signal."""
        self._process.terminate()

    def wait(self) -> int:
        """Waits for its end, and returns the exit status."""
        self._process.join()
        return self.returncode


def _execute(act: Callable[[], object], stderr: IO[bytes], variables: Mapping[str, str], mask: Iterable[int]) -> None:
    """Does one thing in a fork, with the handlers of signals, the files and the environment of a new program."""
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(stderr.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    os.environ.update(variables)
    act()
