"""What befalls a training in one process or in one of two: a message each, no finished checkpoint lost, no hang."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from modkit.runs import checkpoint as store
from modkit.runs.run import Run
from tests.cli.test_damaged import delete, flip, truncate
from tests.kill.forks import Forks, Trained
from tests.run_folders import differing

TOLD = {
    "full": r"No space left on device: '.*step-00000003.*'",
    "full cache": "No space left on device: '.*-cache/stages/.*'",
    "read-only": "Permission denied: '.*/run/checkpoints/.*'",
    "vanished": "run was removed, moved or replaced while this process wrote to it",
    "worker": "a process that reads data has ended",
    "nan": "the loss nll of autoencoder is nan at step [23]",
}
"""What the process says that a fault befalls, by fault."""
LAST = {"full": "step-00000002", "full cache": "step-00000003", "nan": "step-00000002"}
"""The last checkpoint that was finished; by default the second, or the first where a folder goes away meanwhile."""
JUMPS = ["later", "earlier"]
WRITTEN = ("full", "read-only", "vanished")  # what befalls the process that writes
DEFAULT = [("read-only", 0, 1), *((fault, 0 if fault in WRITTEN else 1, 2) for fault in TOLD)]
PLACES = [
    (fault, rank, num) for fault in TOLD for rank, num in ((0, 1), (0, 2), (1, 2)) if not (rank and fault in WRITTEN)
]


def choose(default: Sequence[Any], every: Iterable[Any]) -> list[Any]:
    """Every case; all but some are long settings, since other tests have their like in one process."""
    return [case if case in default else pytest.param(case, marks=pytest.mark.full) for case in every]


@pytest.fixture
def wholes(unstopped: dict[str, Trained], together: dict[str, list[Trained]]) -> dict[int, dict[str, Trained]]:
    """The runs that nothing befell, by the number of processes and by system."""
    return {1: unstopped, 2: {system: runs[0] for system, runs in together.items()}}


def train(forks: Forks, system: str, out: Path, *flags: str, faults: Sequence[str | None]) -> list[Trained]:
    """Trains a system in as many processes as there are faults."""
    return forks.train_together(system, out, *flags, fates=[{"fault": fault} if fault else {} for fault in faults])


@pytest.mark.wide(1)
@pytest.mark.parametrize("place", choose(DEFAULT, PLACES), ids=str)
def test_a_fault_is_told_and_the_run_goes_on(place, forks, wholes, tmp_path):
    fault, rank, num = place
    system, out = "ldm" if fault == "full cache" else "vae", tmp_path / "run"
    flags = ["train.workers=1"] if fault == "worker" else []
    faults = [fault if one == rank else None for one in range(num)]
    failed = train(forks, system, out, *flags, faults=faults)
    assert failed[rank].status == 1 and {one.status for one in failed} <= {0, 1}
    for one in failed:
        messages = re.findall("^modkit: .*", one.said, re.MULTILINE)
        assert len(messages) == one.status and "Traceback" not in one.said
    assert re.search(TOLD[fault], failed[rank].said)
    if fault == "vanished":
        (tmp_path / "elsewhere").rename(out)
    if fault == "read-only":
        (out / "checkpoints").chmod(0o755)
    kept = store.list_names(out / "checkpoints")
    assert fault == "worker" or re.fullmatch(LAST.get(fault, "step-0000000[12]"), kept[-1])
    for name in kept:
        store.load(out / "checkpoints" / name)
    resumed = train(forks, system, out, *flags, "--resume", faults=[None] * num)
    assert [one.status for one in resumed] == [0] * num, resumed[0].said
    results = {"metrics.jsonl", "samples drawn"}  # all else has the number of workers
    assert not results & set(resumed[0].differing(wholes[num][system]))


@pytest.mark.parametrize("num", choose([2], [1, 2]))
def test_a_folder_that_cannot_be_written_is_told_before_training(num, forks, tmp_path):
    (tmp_path / "run").mkdir()
    failed = train(forks, "vae", tmp_path / "run", faults=["closed", *[None] * (num - 1)])
    said = "\n".join(one.said for one in failed)
    assert 0 not in [one.status for one in failed] and not list((tmp_path / "run").iterdir())
    assert said.count("modkit: ") == 1 and re.search("Permission denied: '.*/run/.lock'", said), said


@pytest.mark.parametrize("faults", choose([JUMPS], [["later"], ["earlier"], JUMPS]), ids=str)
def test_a_clock_that_jumps_changes_nothing(faults, forks, wholes, tmp_path):
    trained = train(forks, "vae", tmp_path / "run", faults=faults)
    assert [one.status for one in trained] == [0] * len(faults), trained[0].said
    assert not trained[0].differing(wholes[len(faults)]["vae"])


@pytest.mark.parametrize("damage", choose([flip], [delete, truncate, flip]))
@pytest.mark.parametrize("num", choose([2], [1, 2]))
def test_a_damaged_checkpoint_is_put_aside(num, damage, forks, wholes, tmp_path):
    whole = wholes[num]["ldm"]
    run = shutil.copytree(whole.out, tmp_path / "run")
    damage(run / "checkpoints" / "step-00000006" / "model.safetensors", random.Random(0))
    resumed = train(forks, "ldm", run, "--resume", faults=[None] * num)
    said = "\n".join(one.said for one in resumed)
    assert [one.status for one in resumed] == [0] * num, said
    assert said.count("step-00000006 is damaged and was renamed to damaged-step-00000006") == 1
    shutil.rmtree(run / "checkpoints" / "damaged-step-00000006")
    assert not resumed[0].differing(whole)


@pytest.mark.parametrize("num", choose([2], [1, 2]))
def test_a_second_training_in_a_folder_is_refused(num, forks, wholes, tmp_path):
    run = shutil.copytree(wholes[num]["vae"].out, tmp_path / "run")
    with Run.open(run).hold():
        for flag in ("--resume", "--overwrite"):
            refused = train(forks, "vae", run, flag, faults=[None] * num)
            said = "\n".join(one.said for one in refused)
            assert [one.status for one in refused] == [2] * num
            assert said.count("modkit: ") == said.count("run is being written by another process: wait until") == 1
    assert not differing(run, wholes[num]["vae"].out)
