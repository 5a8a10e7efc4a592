"""Kills training by SIGKILL, resumes it, and expects the very bytes of a run that was never stopped."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modkit.runs import checkpoint as store
from tests.run_folders import differing

HERE = Path(__file__).parent
SYSTEMS = ("vae", "gan", "ldm")
SAMPLED = 12  # instants of a system at least, by default


@dataclass
class Trained:
    """What a fork that trained left: its exit status, a run, and beside it what it said, its instants and samples."""

    status: int
    out: Path
    rank: int = 0

    @property
    def said(self) -> str:
        return self._beside.with_suffix(".txt").read_text()

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self._beside.with_suffix(".json").read_text())

    @property
    def _beside(self) -> Path:
        return self.out.with_name(f"{self.out.name}-{self.rank}") if self.rank else self.out

    def differing(self, other: Trained) -> list[str]:
        """The files in which two runs differ, and whether samples of the models loaded do."""
        drawn = ["samples drawn"] if self.result["samples"] != other.result["samples"] else []
        return differing(self.out, other.out) + drawn


class Forks:
    """Trains in forks of one process of `forks.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def train(self, system: str, out: Path, *flags: str, fatal: int | None = None) -> Trained:
        """Trains a system; the fork is killed at the instant `fatal`."""
        (trained,) = self.train_together(system, out, *flags, fatal=[fatal])
        return trained

    def train_together(self, system: str, out: Path, *flags: str, fatal: Sequence[int | None]) -> list[Trained]:
        """Trains a system in as many processes as there are instants at which to kill one."""
        arguments = ["train", str(HERE / f"{system}.yaml"), "--out", str(out), *flags]
        request = {"arguments": arguments, "out": str(out), "fatal": fatal}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        statuses = json.loads(self._process.stdout.readline())
        return [Trained(status, out, rank) for rank, status in enumerate(statuses)]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    command = [sys.executable, str(HERE / "forks.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Forks(process)
        process.stdin.close()


@pytest.fixture(scope="module")
def unstopped(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    """The run of each system that was never stopped."""
    folder = tmp_path_factory.mktemp("unstopped")
    trained = {system: forks.train(system, folder / system) for system in SYSTEMS}
    assert all(run.status == 0 for run in trained.values()), [run.said for run in trained.values()]
    return trained


def seeded(system: str, instants: list[str]) -> list[int]:
    """An instant of every kind in training, and some of those around files."""
    found: dict[str, list[int]] = {}
    for number, instant in enumerate(instants):
        found.setdefault(instant if " of stage " in instant else re.sub(r"\d+", "N", instant), []).append(number)
    rng = random.Random(system)
    training = [rng.choice(numbers) for kind, numbers in found.items() if " of stage " in kind]
    writing = [rng.choice(numbers) for kind, numbers in found.items() if " of stage " not in kind]
    return sorted(training + rng.sample(writing, max(SAMPLED - len(training), 4)))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_killed_at_any_instant_and_resumed_equals_the_run_never_stopped(
    system: str, forks: Forks, unstopped: dict[str, Trained], tmp_path: Path, request: pytest.FixtureRequest
):
    instants = unstopped[system].result["instants"]
    chosen = range(len(instants)) if request.config.getoption("--full") else seeded(system, instants)
    for number in chosen:
        killed = forks.train(system, tmp_path / f"at-{number}", fatal=number)
        assert killed.status == -signal.SIGKILL
        for name in store.list_names(killed.out / "checkpoints"):
            store.load(killed.out / "checkpoints" / name)
        resumed = forks.train(system, killed.out, "--resume")
        assert resumed.status == 0, f"killed {instants[number]}: {resumed.said}"
        assert not resumed.differing(unstopped[system]), f"killed {instants[number]}"
        shutil.rmtree(killed.out)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_killed_again_and_again_equals_the_run_never_stopped(
    system: str, forks: Forks, unstopped: dict[str, Trained], tmp_path: Path
):
    rng, longest = random.Random(system), len(unstopped[system].result["instants"])
    runs = [forks.train(system, tmp_path / "run", fatal=rng.randrange(longest // 4))]
    while runs[-1].status == -signal.SIGKILL:
        runs.append(forks.train(system, tmp_path / "run", "--resume", fatal=rng.randrange(longest // 2)))
    assert len(runs) > 2
    assert runs[-1].status == 0, runs[-1].said
    assert not runs[-1].differing(unstopped[system])


def test_the_instants_stand_everywhere(unstopped: dict[str, Trained]):
    every = {re.sub(r"\d+", "N", instant) for run in unstopped.values() for instant in run.result["instants"]}
    files = ("model.safetensors", "ema.safetensors", "optimizer-autoencoder.safetensors", "state.json", "manifest.json")
    for file in files:
        assert {f"{m} write checkpoints/.step-N.tmp/{file}" for m in ("before", "amid", "after")} <= every
        assert {f"{m} fsync checkpoints/.step-N.tmp/{file}" for m in ("before", "after")} <= every
    assert {f"{m} replace checkpoints/.step-N.tmp" for m in ("before", "after")} <= every
    assert {f"{m} fsync checkpoints" for m in ("before", "after")} <= every
    ldm = unstopped["ldm"].result["instants"]
    for stage in (0, 1):
        assert ldm.count(f"before step of stage {stage}") >= 3
        assert f"within prepare of stage {stage}" in ldm
        assert f"after copy_to_model of stage {stage + 1}" in ldm or f"before copy_to_model of stage {stage}" in ldm


def draw_kills(instants: Sequence[Sequence[str]], num: int) -> list[list[int | None]]:
    """Instants at which to kill one of two processes, or both: in `prepare`, between stages, and in writing."""
    rng, kills = random.Random("two"), list[list[int | None]]()
    kinds = ("within prepare", "copy_to_model of stage", " checkpoints/", " of stage")
    for number in range(num):
        who = ((0,), (1,), (0, 1))[number % 3]
        found = [[n for n, instant in enumerate(own) if kinds[number % 4] in instant] for own in instants]
        at = [rng.choice(some or range(len(own))) for some, own in zip(found, instants, strict=True)]
        kills.append([at[rank] if rank in who else None for rank in range(2)])
    return kills


def test_two_processes_killed_at_any_instant_and_resumed_equal_two_never_stopped(
    forks: Forks, tmp_path: Path, request: pytest.FixtureRequest
):
    whole = forks.train_together("ldm", tmp_path / "whole", fatal=[None, None])
    assert [one.status for one in whole] == [0, 0], whole[0].said
    for fatal in draw_kills([one.result["instants"] for one in whole], 20 if request.config.getoption("--full") else 2):
        killed = forks.train_together("ldm", tmp_path / "run", fatal=fatal)
        # one ends by itself: the other was killed first, or after its last step
        statuses = {one.status for one in killed}
        assert -signal.SIGKILL in statuses <= {0, 1, -signal.SIGKILL}, f"killed at {fatal}: {killed[0].said}"
        resumed = forks.train_together("ldm", tmp_path / "run", "--resume", fatal=[None, None])
        assert [one.status for one in resumed] == [0, 0], f"killed at {fatal}: {resumed[0].said}"
        assert not resumed[0].differing(whole[0]), f"killed at {fatal}"
        shutil.rmtree(tmp_path / "run")
