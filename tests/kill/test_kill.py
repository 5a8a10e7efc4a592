"""Kills training by SIGKILL, resumes it, and expects the very bytes of a run that was never stopped."""

from __future__ import annotations

import random
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from modkit.runs import checkpoint as store
from tests.kill.conftest import SYSTEMS
from tests.kill.forks import Fate, Forks, Trained, kill_at

SAMPLED = 12  # instants of a system at least, by default


def seeded(system: str, instants: list[str]) -> list[int]:
    """An instant of every kind in training, and some of those around files."""
    found: dict[str, list[int]] = {}
    for number, instant in enumerate(instants):
        found.setdefault(instant if " of stage " in instant else re.sub(r"\d+", "N", instant), []).append(number)
    rng = random.Random(system)
    training = [rng.choice(numbers) for kind, numbers in found.items() if " of stage " in kind]
    writing = [rng.choice(numbers) for kind, numbers in found.items() if " of stage " not in kind]
    return sorted(training + rng.sample(writing, max(SAMPLED - len(training), 4)))


@pytest.mark.parametrize(
    "system", [pytest.param(one, marks=[pytest.mark.full] if one == "vae" else []) for one in SYSTEMS]
)  # by default, `ldm` has an autoencoder's instants as well
def test_a_run_killed_at_any_instant_and_resumed_equals_the_run_never_stopped(
    system: str, forks: Forks, unstopped: dict[str, Trained], tmp_path: Path, request: pytest.FixtureRequest
):
    instants = unstopped[system].result["instants"]
    chosen = range(len(instants)) if request.config.getoption("--full") else seeded(system, instants)
    for number in chosen:
        killed = forks.train(system, tmp_path / f"at-{number}", fate=kill_at(number))
        assert killed.status == -signal.SIGKILL
        for name in store.list_names(killed.out / "checkpoints"):
            store.load(killed.out / "checkpoints" / name)
        resumed = forks.train(system, killed.out, "--resume")
        assert resumed.status == 0, f"killed {instants[number]}: {resumed.said}"
        assert not resumed.differing(unstopped[system]), f"killed {instants[number]}"
        shutil.rmtree(killed.out)


@pytest.mark.wide(1)
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_run_killed_again_and_again_equals_the_run_never_stopped(
    system: str, forks: Forks, unstopped: dict[str, Trained], tmp_path: Path
):
    rng, longest = random.Random(system), len(unstopped[system].result["instants"])
    runs = [forks.train(system, tmp_path / "run", fate=kill_at(rng.randrange(longest // 4)))]
    while runs[-1].status == -signal.SIGKILL:
        runs.append(forks.train(system, tmp_path / "run", "--resume", fate=kill_at(rng.randrange(longest // 2))))
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


def draw_kills(instants: Sequence[Sequence[str]], num: int) -> list[list[Fate]]:
    """Kills of one of two processes, or of both: in `prepare`, between stages, and in writing."""
    rng, kills = random.Random("two"), list[list[Fate]]()
    kinds = ("within prepare", "copy_to_model of stage", " checkpoints/", " of stage")
    for number in range(num):
        who = ((0,), (1,), (0, 1))[number % 3]
        found = [[n for n, instant in enumerate(own) if kinds[number % 4] in instant] for own in instants]
        at = [rng.choice(some or range(len(own))) for some, own in zip(found, instants, strict=True)]
        kills.append([kill_at(at[rank]) if rank in who else {} for rank in range(2)])
    return kills


@pytest.mark.wide
def test_two_processes_killed_at_any_instant_and_resumed_equal_two_never_stopped(
    forks: Forks, together: dict[str, list[Trained]], tmp_path: Path, request: pytest.FixtureRequest
):
    whole = together["ldm"]
    for fates in draw_kills([one.result["instants"] for one in whole], 20 if request.config.getoption("--full") else 2):
        killed = forks.train_together("ldm", tmp_path / "run", fates=fates)
        while {one.status for one in killed} == {0}:  # they have waited less, and so had fewer instants
            shutil.rmtree(tmp_path / "run")
            fates = [{**fate, "at": fate["at"] // 2} if fate else fate for fate in fates]
            killed = forks.train_together("ldm", tmp_path / "run", fates=fates)
        # one ends by itself: the other was killed first, or after its last step
        statuses = {one.status for one in killed}
        assert -signal.SIGKILL in statuses <= {0, 1, -signal.SIGKILL}, f"{fates}: {killed[0].said}"
        resumed = forks.train_together("ldm", tmp_path / "run", "--resume", fates=[{}, {}])
        assert [one.status for one in resumed] == [0, 0], f"{fates}: {resumed[0].said}"
        assert not resumed[0].differing(whole[0]), f"{fates}"
        shutil.rmtree(tmp_path / "run")
