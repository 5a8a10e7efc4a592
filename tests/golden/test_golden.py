"""Golden files find what has changed, and nothing else; what has moved on purpose is no difference."""

import json
import shutil

import pytest

from tests.golden import store
from tests.golden.__main__ import main
from tests.golden.cases import Case
from tests.golden.comparison import Comparison
from tests.golden.moved import Move

VAE = """\
name: tiny
data: {use: ring, num: 32, num_test: 16}
model:
  use: autoencoder
  encoder: {use: mlp, width: 4, depth: 1}
  decoder: {use: mlp, width: 4, depth: 1}
train: {device: cpu, batch_size: 8, log: {every: 1}, samples: {num: 2}}
"""
SOUND = Case("examples/tiny", VAE, ("train.seed=0",))
WRONG = Case("malformed/width", VAE.replace("width: 4", "width: four", 1))


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The golden files of both cases."""
    folder = tmp_path_factory.mktemp("golden")
    store.write(folder, [SOUND, WRONG], say=lambda name: None)
    return folder


def read(folder, case):
    return json.loads((folder / f"{case.name}.json").read_text())


def test_a_case_holds_what_it_says_and_makes(golden):
    case = read(golden, SOUND)
    assert [row["path"] for row in case["check"]["parts"]][-1] == "model"
    assert "encoder: {use: mlp, width: 4, depth: 1, activation: silu" in case["resolved"]
    assert case["weights"].keys() == case["trained"].keys() and case["weights"] != case["trained"]
    assert len(case["weights"]["encoder.hidden.0.weight"]) == 64
    assert list(case["losses"]["autoencoder/nll"]) == [f"stage 0 step {step}" for step in (1, 2, 3)]
    assert case["samples"]["shape"] == [4, 2] and len(case["samples"]["values"]) == 8
    wrong = read(golden, WRONG)
    assert wrong["messages"] == ["modkit: spec.yaml:5:30: model.encoder.width: expected int, got 'four'"]
    assert wrong["failed"] == 2 and "weights" not in wrong


def test_the_same_code_makes_the_same(golden):
    assert list(store.check(golden, moves=(), present=[SOUND, WRONG])) == []


def test_a_planted_change_is_found_and_nothing_else(golden):
    sound = SOUND._replace(spec=VAE.replace("depth: 1}", "depth: 1, init_std: 0.5}", 1))
    wrong = WRONG._replace(spec=WRONG.spec.replace("four", "five"))
    said = [f"modkit: spec.yaml:5:30: model.encoder.width: expected int, got '{word}'" for word in ("four", "five")]
    found = list(store.check(golden, "malformed/*", present=[wrong]))
    assert [(row.case, row.field, row.key) for row in found] == [(WRONG.name, "messages", key) for key in said]

    moves = [Move("malformed/*", "messages", *said), Move("*", "losses", "generator", None)]
    *found, unused = store.check(golden, moves=moves, present=[sound, wrong])
    assert unused == f"moved.py: no case shows {moves[1]}"
    keys = {row.field: [each.key for each in found if each.field == row.field] for row in found}
    assert keys.pop("resolved") == ["model.encoder.init_std"]
    assert keys.pop("weights") == ["encoder.hidden.0.weight", "encoder.hidden.0.bias"]
    assert keys.pop("losses") == ["autoencoder/nll", "autoencoder/kl"]
    assert keys.pop("samples") == ["sha256", "values"]
    assert list(keys) == ["trained"]


def test_it_ends_with_a_status(golden, tmp_path, capsys):
    assert main(["check", str(golden), "--only", "malformed/*"]) == 0
    file = tmp_path / "golden" / "malformed" / "width.json"
    shutil.copytree(golden, tmp_path / "golden")
    file.write_text(file.read_text().replace("expected int", "expects int"))
    assert main(["check", str(tmp_path / "golden"), "--only", "malformed/*"]) == 1
    assert "expects int, got 'four': 1 → nothing\n" in capsys.readouterr().out


def test_another_environment_is_refused(golden, monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.9")
    with pytest.raises(ValueError, match=r"expects the environment that it was written in, got python: 3\.1.* → 3\.9$"):
        next(store.check(golden))


FORMER = {"weights": {"encoder": "a", "judge.out": "b", "judges.out": "c"}, "messages": ["no", "none"]}
NOW = {"weights": {"encoder": "a", "critic.out": "b", "critics.out": "c"}, "messages": ["none", "not"]}
OUT = ["critic.out", "judge.out"]
OUTS = ["critics.out", "judges.out"]
SAID = ["no", "not"]


@pytest.mark.parametrize(
    ("moves", "left", "unused"),
    [
        ([], [*OUT, *OUTS, *SAID], 0),
        ([Move("*", "weights", "judge", "critic")], [*OUTS, *SAID], 0),
        ([Move("hosts/*", "weights", "judges", "critics")], [*OUT, *SAID], 0),
        ([Move("swaps/*", "weights", "judge", "critic")], [*OUT, *OUTS, *SAID], 1),
        ([Move("*", "resolved", "judge", "critic")], [*OUT, *OUTS, *SAID], 1),
        ([Move("*", "weights", "judge", "critic", "other")], ["critic.out", *OUTS, *SAID], 0),
        ([Move("*", "weights", "judge", "critic", "b")], [*OUTS, *SAID], 0),
        ([Move("*", "weights", "judge.out", None)], ["critic.out", *OUTS, *SAID], 0),
        ([Move("*", "weights", None, "critic")], ["judge.out", *OUTS, *SAID], 0),
        ([Move("*", "weights", None, "encoder")], [*OUT, *OUTS, *SAID], 1),
        ([Move("*", "messages", "no", "not")], [*OUT, *OUTS], 0),
        ([Move("*", "messages", "n", "m")], [*OUT, *OUTS, *SAID], 1),
    ],
)
def test_a_move_silences_what_it_lists(moves, left, unused):
    comparison = Comparison(moves)
    found = [difference.key for difference in comparison.compare("hosts/gan", FORMER, NOW)]
    assert sorted(found) == sorted(left)
    assert len(comparison.list_unused()) == unused


def test_keys_of_trained_weights_move_with_those_of_initial_ones():
    comparison = Comparison([Move("*", "weights", "judge", "critic")])
    former, now = {"trained": {"judge.out": "a"}}, {"trained": {"critic.out": "a"}}
    assert list(comparison.compare("hosts/gan", former, now)) == []


@pytest.mark.parametrize(
    ("field", "former", "now", "keys"),
    [
        ("resolved", "a: {b: 1, c: [1, 2]}\n", "a: {b: 1, c: [1, 3]}\n", ["a.c"]),
        ("resolved", "a: {b: 1, c: 2}\n", "a: {c: 2, b: 1}\n", ["(order or form)"]),
        ("messages", ["a", "b"], ["b", "a"], ["(order or form)"]),
        ("messages", ["a"], ["a", "a"], ["a"]),
        ("failed", 2, 1, [""]),
        (
            "check",
            {"parts": [{"path": "model.a", "n": 1}, {"path": "model.b", "n": 1}]},
            {"parts": [{"path": "model.b", "n": 2}]},
            ["parts.model.a.n", "parts.model.b.n"],
        ),
    ],
)
def test_a_difference_goes_by_its_key(field, former, now, keys):
    assert [row.key for row in Comparison(()).compare("hosts/gan", {field: former}, {field: now})] == keys


def test_samples_are_told_apart_by_how_far():
    former, now = {"samples": {"values": [0.5, 1.0]}}, {"samples": {"values": [0.5, 0.75]}}
    (row,) = Comparison(()).compare("hosts/gan", former, now)
    assert str(row) == "hosts/gan: samples values: [0.5, 1.0] → [0.5, 0.75] (at most 0.25 apart)"


def test_a_name_stands_for_one_case(tmp_path):
    with pytest.raises(ValueError, match="expects cases of different names, got examples/tiny twice"):
        store.write(tmp_path, [SOUND, WRONG, SOUND])


def test_a_run_made_before_is_loaded_and_drawn_from(golden, tmp_path):
    store.write(tmp_path / "other", [SOUND._replace(overrides=("train.seed=1",))], say=lambda name: None)
    folder = shutil.copytree(golden, tmp_path / "golden")
    shutil.rmtree(folder / "runs")
    shutil.copytree(tmp_path / "other" / "runs", folder / "runs")
    found = list(store.check(folder, "examples/*", present=[SOUND]))
    assert [(row.field, row.key) for row in found] == [("before", "sha256"), ("before", "values")]
