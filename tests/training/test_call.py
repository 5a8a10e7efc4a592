"""The call that began a run goes on with the run's own spec when it is repeated; another is refused."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from modkit import Run, Spec, SpecError, resume, train
from modkit.cli.app import app
from modkit.runs.layout import LOCK
from modkit.runs.lock import encode
from tests.run_folders import contents, differing

TEXT = """\
name: tiny
data: {use: ring, num: 64, num_test: 16}
model:
  use: diffusion
  network: {use: mlp, width: 8, depth: 1}
  sampler: {use: ddim, steps: 4}
train: {steps: 4, batch_size: 16, device: cpu, log: {every: 1}, samples: {every: 2}, checkpoints: {every: 2, keep: 9}}
"""
SPEC = Spec.from_yaml(TEXT)
FIRST = ("train.optimizer.lr=1e-2", "model.sampler=heun")


def test_a_repeated_call_goes_on_with_what_was_changed_since(tmp_path: Path) -> None:
    whole = train(SPEC, tmp_path / "whole", overrides=FIRST)
    run = train(SPEC, tmp_path / "run", overrides=FIRST, steps=2)
    text = TEXT.replace("{use: ddim, steps: 4}", "\n    # by default\n    use: ddim\n    steps: 4")
    train(Spec.from_yaml(text), run.path, overrides=FIRST, resume=True)
    assert not differing(run.path, whole.path)
    assert resume(run.path, ["train.steps=6"]).find_checkpoint_name() == "step-00000006"
    resumed = train(SPEC, run.path, overrides=FIRST, resume=True)
    assert (
        Spec.from_yaml(resumed.spec_text).at("train.steps") == 6 and resumed.find_checkpoint_name() == "step-00000006"
    )


def test_a_run_goes_on_by_its_own_spec(tmp_path: Path) -> None:
    run = train(SPEC, tmp_path / "run", overrides=FIRST, steps=2)
    assert train(Spec.from_yaml(run.spec_text), run.path, resume=True).find_checkpoint_name() == "step-00000004"


OTHERS = {
    "edited": (TEXT.replace("{steps: 4, b", "{steps: 6, b"), FIRST, "train.steps: got 6, expected 4", "train.steps=6"),
    "added": (TEXT + "evaluate: {num: 16}\n", FIRST, "evaluate: got .*16.*, expected absent", "'evaluate="),
    "cut": (TEXT.replace(", steps: 4}", "}"), FIRST, "model.sampler.steps: got absent, expected 4", ""),
    "fewer": (TEXT, FIRST[:1], "got the overrides .*, expected .* model.sampler=heun", ""),
    "none": (TEXT, (), "got the overrides none, expected", ""),
    "more": (TEXT, (*FIRST, "train.steps=6"), "got the overrides .*steps=6, expected", "train.steps=6"),
}


@pytest.mark.wide(2)
@pytest.mark.parametrize("name", OTHERS)
def test_another_call_is_refused_with_the_command_that_changes_the_run(name: str, tmp_path: Path) -> None:
    text, overrides, message, change = OTHERS[name]
    run = train(SPEC, tmp_path / "run", overrides=FIRST, steps=2)
    before = contents(run.path)
    with pytest.raises(SpecError, match=message) as error:
        train(Spec.from_yaml(text), run.path, overrides=overrides, resume=True)
    hint = error.value.problems[-1].hint or ""
    assert f"modkit resume {run.path} {change}" in hint and contents(run.path) == before
    words = shlex.split(hint.partition(" changes what")[0])[1:]
    result = CliRunner().invoke(app, [*words, "--no-evaluate"])
    assert result.exit_code == 0 and Run.open(run.path).finished, result.output


def test_the_command_resumes_and_refuses_what_a_run_has_trained_with(tmp_path: Path) -> None:
    run = train(SPEC, tmp_path / "run", steps=2)
    result = CliRunner().invoke(app, ["resume", str(run.path), "train.optimizer.lr=1"])
    assert result.exit_code == 2 and "train.optimizer.lr: got 1 in a run that has trained with" in result.output
    assert CliRunner().invoke(app, ["resume", str(run.path), "train.steps=6"]).exit_code == 0
    assert Run.open(run.path).find_checkpoint_name() == "step-00000006"
    said = CliRunner().invoke(app, ["resume", str(tmp_path / "none")]).output
    assert "Run.open expects the directory of a run, got" in said


@pytest.mark.parametrize("written", [None, {"spec": TEXT, "overrides": [], "dropped": []}])
def test_runs_made_before_go_on(written: object, tmp_path: Path) -> None:
    run = train(SPEC, tmp_path / "run", steps=2)
    rest = {name: value for name, value in run.lock.items() if name != "written"}
    (run.path / LOCK).write_bytes(encode(rest if written is None else {**rest, "written": written}))
    assert train(SPEC, run.path, resume=True).find_checkpoint_name() == "step-00000004"


@pytest.mark.wide(1)
@pytest.mark.parametrize("written", [{"spec": 1}, {"spec": "", "overrides": [1]}, {"spec": ""}])
def test_a_lock_that_holds_something_else_is_refused(written: object, tmp_path: Path) -> None:
    run = train(SPEC, tmp_path / "run", steps=2)
    (run.path / LOCK).write_bytes(encode({**run.lock, "written": written}))
    with pytest.raises(ValueError, match="expected `written` to hold a spec and its overrides, got"):
        train(SPEC, run.path, resume=True)
