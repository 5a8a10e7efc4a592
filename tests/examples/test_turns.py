"""Turns: what several processes of a study train and measure, each piece once."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from examples.studies.turns import keep_in_turns, train_in_turns
from modkit import Run, Spec, use
from modkit.starters.model import Gaussian

DATA = use("ring", num=16, num_test=16)
TRAIN = {"batch_size": 8, "steps": 2, "device": "cpu", "samples": {"num": 1}}


def share(work):
    """Lets two threads, which stand for processes since a folder is held by its descriptor, do the same work."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda _: work(), range(2)))


def test_processes_share_what_is_measured_and_all_have_the_whole(tmp_path):
    measured = []

    def measure(name):
        measured.append(name)
        time.sleep(0.05)
        return {"size": len(name)}

    tasks = {f"figures/{name}": partial(measure, name) for name in ("a", "bb", "ccc")}
    whole = {"figures/a": {"size": 1}, "figures/bb": {"size": 2}, "figures/ccc": {"size": 3}}
    assert share(lambda: keep_in_turns(tmp_path, tasks)) == [whole, whole]
    assert sorted(measured) == ["a", "bb", "ccc"]
    assert json.loads((tmp_path / "figures" / "bb.json").read_bytes()) == {"size": 2}
    assert keep_in_turns(tmp_path, tasks) == whole and len(measured) == 3


@pytest.mark.wide
def test_processes_share_runs(tmp_path):
    said = []
    spec = Spec(name="one", data=DATA, model=use(Gaussian), train=TRAIN)
    specs = {f"tame-{seed}": spec.with_value("train.seed", seed) for seed in range(3)}
    share(lambda: train_in_turns(tmp_path, specs, said.append))
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted(specs)
    assert all(Run.open(tmp_path / "runs" / name).finished for name in specs)
    assert sorted(line.split()[1] for line in said if line.startswith("trained")) == [f"{name}:" for name in specs]
