"""Python in forks of one process that has imported what each would import: that takes seconds of every new process.

A fork has modules of torch and modkit already, so that what shows which modules are imported, or how much memory a
process takes, starts Python anew (`tests/processes.py`).
"""

from __future__ import annotations

import io
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

__all__ = ["Fork", "act_at_once", "fork_python", "server", "watch_in_fork"]

ROOT = Path(__file__).parents[1]
WAIT = 600.0
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.forked"])


def server() -> Any:
    """The context of `multiprocessing` whose processes are forks."""
    with pytest.MonkeyPatch.context() as patch:  # the server finds `tests`, wherever this process is
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    return _context


class Fork:
    """A fork that does `python ARGUMENTS`, which are `-W error` or not, and `-c CODE`, `-m MODULE` or a file.

    Args:
        arguments: The arguments.
        cwd: Where it works.
        environment: Its environment.
        input: What it reads from stdin.
    """

    def __init__(self, *arguments: object, cwd: Path, environment: Mapping[str, str], input: str = "") -> None:
        self._said = [tempfile.NamedTemporaryFile("r", prefix="fork-") for _ in range(2)]  # noqa: SIM115
        words, names = list(map(str, arguments)), [file.name for file in self._said]
        self._process = server().Process(target=_act, args=(words, str(cwd), dict(environment), names, input))
        self._process.start()

    def end(self, timeout: float = WAIT) -> subprocess.CompletedProcess[str]:
        """Waits for it, and returns what it has printed and its status.

        Raises:
            TimeoutError: If it takes longer; it is killed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"a fork expects to end in {timeout} s: {self._said[1].read()}")
        out, error = (file.read() for file in self._said)
        for file in self._said:
            file.close()
        return subprocess.CompletedProcess([], self._process.exitcode, out, error)


def fork_python(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Does `python ARGUMENTS` in a fork, and expects status 0."""
    done = Fork(*arguments, cwd=cwd, environment={**os.environ, **environment}).end()
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def act_at_once(acts: Sequence[Callable[[], object]]) -> None:
    """Acts in a fork of this process each, all from the same moment on, and expects that none fails."""
    waiting, start = os.pipe()
    children = []
    for act in acts:
        if child := os.fork():
            children.append(child)
            continue
        os.close(start)
        os.read(waiting, 1)  # until the last writer closes it
        try:
            act()
        except BaseException:
            os._exit(1)
        os._exit(0)
    os.close(start)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)
    os.close(waiting)


def watch_in_fork(lines: str) -> subprocess.CompletedProcess[str]:
    """Stands for the process of the battery's `isolation`, which finds modules where this process does."""
    code = (
        "import sys; from modkit.parts.registry import get_registry; from modkit.testing.isolated import main; "
        f"sys.path[:] = {sys.path!r}; sys.dont_write_bytecode = True; get_registry.cache_clear(); main()"
    )
    return Fork("-c", code, cwd=Path.cwd(), environment=os.environ, input=lines).end()


def _act(words: list[str], cwd: str, environment: dict[str, str], said: list[str], input: str) -> None:
    sys.stdin = io.StringIO(input)
    for number, name in enumerate(said, start=1):
        os.dup2(os.open(name, os.O_WRONLY), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path.insert(0, cwd)
    if words[:2] == ["-W", "error"]:
        warnings.simplefilter("error")
        words = words[2:]
    flag, *rest = words
    if flag == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif flag == "-c":
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(sys.modules["__main__"]))
    else:
        sys.argv = words
        runpy.run_path(flag, run_name="__main__")
