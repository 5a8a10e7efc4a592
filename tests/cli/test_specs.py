"""`modkit diff` of runs."""

import json
import shutil

import pytest

import modkit
from modkit import Spec
from modkit.runs.lock import decode, encode
from tests.command import run
from tests.sweeps.forks import SPEC


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, its repetition, and one with another sampler and network."""
    folder = tmp_path_factory.mktemp("runs")
    swapped = SPEC.replace("{use: mlp, width: 8, depth: 1}", "{use: unet, channels: [8]}").replace("ddim", "heun")
    for name, text in (("one", SPEC), ("again", SPEC), ("swapped", swapped)):
        modkit.train(Spec.from_yaml(text), folder / name)
    return folder


@pytest.mark.wide
def test_runs_of_one_spec_do_not_differ(runs):
    assert run("diff", runs / "one", runs / "again")[0] == "no difference\n"


def test_swapped_parts_are_no_missing_parts(runs):
    """The fault: every part that one run alone had was called missing, with a remedy, or new."""
    found = json.loads(run("diff", runs / "one", runs / "swapped", "--json")[0])
    assert [row["path"] for row in found["spec"]] == ["model.network", "model.sampler"]
    assert found["lock"] == []
    assert "missing" not in run("diff", runs / "swapped", runs / "one")[0]


def test_other_versions_are_told(runs, tmp_path):
    shutil.copytree(runs / "swapped", tmp_path / "older")
    file = tmp_path / "older" / "modkit.lock"
    file.write_bytes(encode(decode(file.read_bytes()) | {"torch": "2.0"}))
    said = run("diff", tmp_path / "older", runs / "swapped")[0]
    assert said.splitlines()[0].startswith("torch is 2.0 in the first run, ") and len(said.splitlines()) == 1
