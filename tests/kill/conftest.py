"""One process for all tests of this folder, in forks of which they train."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.kill.forks import HERE, Forks, Trained

SYSTEMS = ("vae", "gan", "ldm")


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    command = [sys.executable, str(HERE / "server.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Forks(process)
        process.stdin.close()


@pytest.fixture(scope="session")
def unstopped(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """The run of each system that was never stopped, by one process."""
    folder = tmp_path_factory.mktemp("unstopped")
    trained = {system: forks.train(system, folder / system) for system in SYSTEMS}
    assert all(run.status == 0 for run in trained.values()), [run.said for run in trained.values()]
    return trained


@pytest.fixture(scope="session")
def together(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Trained]]:
    """The same by two processes, of two systems."""
    folder = tmp_path_factory.mktemp("together")
    trained = {system: forks.train_together(system, folder / system, fates=[{}, {}]) for system in ("vae", "ldm")}
    assert all(run.status == 0 for runs in trained.values() for run in runs), [
        runs[0].said for runs in trained.values()
    ]
    return trained
