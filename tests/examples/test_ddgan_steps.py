"""The study of DDGAN's steps: its judgement of made-up figures, and how it goes on after a kill."""

import json
import re
from pathlib import Path

import pytest
import torch

import modkit
from examples.ddgan_steps import study
from examples.ddgan_steps.study import Plan, carry_out
from examples.ddgan_steps.verdict import no_worse, recall_claim, report, speed_claim
from examples.studies.page import insert
from modkit.training.preview import Preview
from tests.examples.killing import resume_after_kills
from tests.forks import fork_python

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "ddgan_steps"
SMALL = ("train.batch_size=8", "train.samples.num=1", "model.network.channels=[8]")
PLAN = Plan(updates=3, seeds=2, chains=(1, 4), most=2, num=24, rounds=1, overrides=SMALL)
SHIFTS = (-0.01, 0.0, 0.01)  # a standard error of 0.00577 over three seeds


def rows(fd=5.0, recall=0.5, seeds=3):
    other = {"precision": 0.7, "density": 0.8, "coverage": 0.6}
    return [{"FD": fd + 10 * shift, "recall": recall + shift, **other} for shift in SHIFTS[:seeds]]


def chains(*recalls):
    """T = 1 at a recall of .5, T = 4 at the recalls given, one a checkpoint."""
    updates = range(100, 100 * len(recalls) + 1, 100)
    return {
        1: {update: rows(recall=0.5) for update in updates},
        4: {update: rows(recall=recall) for update, recall in zip(updates, recalls)},
    }


@pytest.mark.parametrize(("recalls", "holds"), [
    ((0.512, 0.52, 0.6), True),  # both errors together: .01155
    ((0.511, 0.52, 0.6), None),
    ((0.52, 0.6, 0.511), None),
    ((0.52, 0.6, 0.4), False),
])  # fmt: skip
def test_recall_has_to_be_higher_at_every_checkpoint(recalls, holds):
    claim = recall_claim(chains(*recalls))
    assert claim.holds is holds
    assert f"{recalls[2]:.3g} ± 0.0058 against 0.5 ± 0.0058 at 300" in claim.figures


def test_one_seed_decides_nothing():
    made = {steps: {update: one[:1] for update, one in each.items()} for steps, each in chains(0.9).items()}
    assert recall_claim(made).holds is None
    assert no_worse(rows(seeds=1), rows(seeds=1)) is None
    claim = speed_claim(rows(seeds=1), {1: rows(seeds=1)}, {"ddgan": [1.0], "ddpm": [2.0]})
    assert claim.holds is None


@pytest.mark.parametrize(("figures", "fine"), [
    ({}, True),
    ({"fd": 5.081}, True), ({"fd": 5.082}, False),  # an error of the difference of .0816
    ({"recall": 0.492}, True), ({"recall": 0.491}, False),  # of .00816
    ({"fd": 1.0, "recall": 0.1}, False), ({"fd": 9.0, "recall": 0.9}, False), ({"fd": 1.0, "recall": 0.9}, True),
])  # fmt: skip
def test_no_worse_is_of_both_by_the_error_of_the_difference(figures, fine):
    assert no_worse(rows(**figures), rows()) is fine


@pytest.mark.parametrize(("enough", "holds", "says"), [
    (None, True, "DDPM is worse at all of up to 16 steps"),
    (16, True, "DDPM needs 16; 1,000 samples take DDGAN 2 ± 0 s at T = 4 and DDPM 9 ± 0.58 s at 16 steps, 4.5 ± 0.29"),
    (8, True, "DDPM needs 8;"),
    (4, False, "DDPM needs no more than 4 steps: 4 will do"),
    (1, False, "DDPM needs no more than 4 steps: 1 will do"),
])  # fmt: skip
def test_ddpm_needs_the_fewest_steps_that_are_no_worse(enough, holds, says):
    tried = [1, 2, 4, 8, 16]
    ddpm = {steps: rows() if steps == enough else rows(fd=50.0) for steps in tried[: tried.index(enough or 16) + 1]}
    claim = speed_claim(rows(), ddpm, {"ddgan": [2.0, 2.0, 2.0], "ddpm": [8.0, 9.0, 10.0]})
    assert claim.holds is holds
    assert says in claim.figures


def test_the_report_has_every_chain_at_every_checkpoint_and_says_what_is_contradicted():
    floor = {"FD": 1.0, "precision": 0.9, "recall": 0.91, "density": 1.0, "coverage": 0.92}
    text = report(chains(0.9, 0.4), {1: rows(fd=9.0), 2: rows()}, {"ddgan": [2.0] * 3, "ddpm": [1.0] * 3}, floor)
    assert "| 100 | 1 | 5 ± 0.058 | 0.7 ± 0 | 0.5 ± 0.0058 | 0.8 ± 0 | 0.6 ± 0 |" in text
    assert "| 200 | 4 | 5 ± 0.058 | 0.7 ± 0 | 0.4 ± 0.0058 |" in text
    assert "| held-out images |  | 1 | 0.9 | 0.91 | 1 | 0.92 |" in text
    assert "| DDPM | 1 | 9 ± 0.058 |" in text
    assert text.count("**contradicted**") == 2


def test_the_page_of_the_study_has_the_marks():
    assert "new figures" in insert((ROOT / "docs" / "ddgan.md").read_text(), "new figures")


def test_both_specs_have_the_same_network_but_for_the_noise():
    ddgan, ddpm = (modkit.load_spec(FOLDER / f"{name}.yaml") for name in ("ddgan", "ddpm"))
    assert ddgan.data == ddpm.data and ddgan.data["size"] == study._SIZE
    network = {**ddgan.model["network"]}
    del network["style"]  # the width of what the noise becomes
    assert network == ddpm.model["network"]
    assert ddgan.train["batch_size"] == ddpm.train["batch_size"]
    assert not {"steps", "stages"} & {*ddgan.train, *ddpm.train}


@pytest.mark.full
def test_a_study_that_was_killed_goes_on_to_the_same_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(Preview, "draw", lambda *_: torch.zeros(1, 8, 8, dtype=torch.uint8))  # DDPM's takes 1024 steps
    said = []
    carry_out(PLAN, tmp_path / "whole", said.append)
    whole = json.loads((tmp_path / "whole" / "study.json").read_bytes())
    trained = [line.split()[1] for line in said if line.startswith("training")]
    assert trained == ["ddgan-1-0", "ddgan-4-0", "ddpm-0", "ddgan-1-1", "ddgan-4-1", "ddpm-1"]

    broken, kills = tmp_path / "broken", {"train": 4, "save": 2, "run": "ddgan-4-1", "score": "_scores", "scores": 5}
    found = resume_after_kills(study, PLAN, broken, **kills)
    assert {**found, "seconds": 0, "claims": 0} == {**whole, "seconds": 0, "claims": 0}
    assert set(found["chains"]) == {"1", "4"} and set(found["chains"]["4"]) == {"1", "2", "3"}
    first, last = (found["chains"]["4"][update] for update in ("1", "3"))
    assert first != last and last[0] != last[1]
    assert set(found["ddpm"]) <= {"1", "2"}
    assert (broken / "report.md").read_text().count("\n- ") == 2


def test_a_study_of_another_plan_is_not_resumed(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({"updates": 3}))
    with pytest.raises(ValueError, match="to hold a study of the same plan, got one with another seeds"):
        carry_out(PLAN, tmp_path)


def test_a_plan_that_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="Plan expects updates of a multiple of 3, .* got 10, 3 and "):
        Plan(updates=10)
    with pytest.raises(ValueError, match=r"and 1 and 4 among the chains, got 1800, 3 and \(1, 2\)"):
        Plan(chains=(1, 2))


def test_the_command_says_what_it_does():
    ran = fork_python("-m", "examples.ddgan_steps", "--help", cwd=ROOT)
    assert re.search(r"--quick .*--full .*--out", ran.stdout.replace("\n", " "))
