"""Resuming with changes: what may change takes effect and is recorded, anything else is refused by key."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from modkit import Run, Spec, SpecError, TensorType, evaluate_run, fit, resume, train, use
from modkit.cli.app import app
from modkit.evaluation.report import Report, locate_report
from modkit.models import GAN
from modkit.runs import checkpoint as store
from modkit.runs import files
from modkit.runs.layout import LOCK
from modkit.runs.lock import encode
from tests.run_folders import contents

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


def trained(folder: Path, *overrides: str, spec: Spec = SPEC, **options: Any) -> Run:
    return train(spec, folder, overrides=overrides, **options)


def resumed(run: Run, *overrides: str, **options: Any) -> Run:
    return resume(run, overrides, **options)


def read_revisions(run: Run) -> list[tuple[int, list[str]]]:
    found = Run.open(run.path).lock.get("revisions", [])
    return [(one["step"], [f"{c['path']}: {c['before']} -> {c['now']}" for c in one["changes"]]) for one in found]


FREE = {
    "name=other": "name: tiny -> other",
    "train.steps=6": "train.steps: 4 -> 6",
    "train.workers=1": "train.workers: 0 -> 1",
    "train.log.every=2": "train.log.every: 1 -> 2",
    "train.samples.num=9": "train.samples.num: 64 -> 9",
    "train.checkpoints.keep=1": "train.checkpoints.keep: 9 -> 1",
    "model.sampler=heun": "model.sampler: ddim(steps=4, eta=0.0, clip=null, spacing=trailing) -> heun(",
    "model.sampler.steps=3": "model.sampler.steps: 4 -> 3",
    "evaluate.num=16": "evaluate: absent -> {",
}


@pytest.mark.wide(3)
@pytest.mark.parametrize("change", FREE)
def test_what_may_change_takes_effect_and_is_recorded(change: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", steps=2)
    run = resumed(run, change, evaluate=False)
    ((step, (told,)),) = read_revisions(run)
    assert step == 2 and told.startswith(FREE[change].split("(")[0])
    path, _, value = change.partition("=")
    now = Spec.from_yaml(Run.open(run.path).spec_text).at(path)
    assert str(getattr(now, "use", now)) == value
    resumed(run, evaluate=False)  # nothing more has changed
    assert len(read_revisions(run)) == 1
    assert Spec.from_yaml(Run.open(run.path).spec_text).at(path) == now


HELD = {
    "train.optimizer.lr=1e-2": "train.optimizer.lr",
    "train.optimizer.weight_decay=0.5": "train.optimizer.weight_decay",
    "train.optimizer=sgd": "train.optimizer",
    "train.optimizer=adam": "train.optimizer",  # whose states are those of adamw
    "train.batch_size=8": "train.batch_size",
    "train.precision=bf16": "train.precision",
    "train.clip=1.0": "train.clip",
    "train.lr_schedule=cosine": "train.lr_schedule",
    "train.ema=0.5": "train.ema",
    "train.seed=1": "train.seed",
    "model.parametrization=x0": "model.parametrization",
    "model.network.width=9": "model.network.width",
    "data.num=32": "data.num",
}


@pytest.mark.wide(4)
@pytest.mark.parametrize("change", HELD)
def test_anything_else_is_refused_by_key_and_nothing_is_written(change: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", steps=2)
    before = contents(run.path)
    with pytest.raises(SpecError) as error:
        resumed(run, change, "train.steps=8")
    (problem,) = error.value.problems
    assert problem.path == HELD[change] and problem.position and problem.hint
    assert problem.hint.startswith(f"modkit branch {run.path} {HELD[change]}=")
    assert contents(run.path) == before


@pytest.mark.wide(1)
@pytest.mark.parametrize("again", [True, False])
def test_a_killed_revision_leaves_one_of_the_two_specs(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is of what took effect: once if the call is repeated, and not at all otherwise."""
    run, replace_file = trained(tmp_path / "run", steps=2), files.replace_file

    def fail_at_spec(path: Path, data: bytes) -> None:
        if path.name == "spec.yaml":
            raise OSError("the disk is full")
        replace_file(path, data)

    with monkeypatch.context() as patch:
        patch.setattr("modkit.runs.run.replace_file", fail_at_spec)
        with pytest.raises(OSError, match="the disk is full"):
            resumed(run, "train.log.every=2")
    assert Run.open(run.path).half_revised
    resumed(run, *["train.log.every=2"] * again)
    assert read_revisions(run) == [(2, ["train.log.every: 1 -> 2"])] * again
    assert Run.open(run.path).finished and not Run.open(run.path).half_revised


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_resuming_where_no_run_is_says_that_it_starts_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (file := tmp_path / "tiny.yaml").write_text(TEXT)
    result = command("train", file, "--out", tmp_path / "run", "--steps", 1, "--resume")
    assert result.exit_code == 0 and Run.open(tmp_path / "run").finished
    assert f"{tmp_path / 'run'} holds no run yet: this starts one" in caplog.text
    caplog.clear()
    command("train", file, "--out", tmp_path / "run", "--resume")
    assert "holds no run" not in caplog.text


def test_data_may_move_and_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, new = tmp_path / "x.npy", tmp_path / "elsewhere" / "y.npy"
    np.save(file, points := np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32))
    run = trained(tmp_path / "run", spec=SPEC.with_value("data", use("array", path=str(file))), steps=2)
    before = contents(run.path)
    new.parent.mkdir()
    np.save(new, points + 1)
    file.unlink()
    with pytest.raises(SpecError, match=rf"data.path: got {new} in a run that has trained with {file}, exp"):
        resumed(run, "train.steps=3", f"data.path={new}")
    assert contents(run.path) == before
    new.unlink()
    np.save(new, points)
    with pytest.raises(SpecError, match="data.test: got 0.5 in a run that has trained with 0.1"):
        resumed(run, "train.steps=3", f"data.path={new}", "data.test=0.5")
    resumed(run, "train.steps=3", f"data.path={new}")
    assert not caplog.messages and f"data.path: {file} -> {new}" in read_revisions(run)[-1][1]
    resumed(run, "train.steps=4")
    assert Run.open(run.path).kept[-1] == "step-00000004"


@pytest.mark.wide
def test_other_data_are_warned_of_and_recorded_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file, spec = tmp_path / "x.npy", SPEC.with_value("data", use("array", path=str(tmp_path / "x.npy")))
    points = np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32)
    np.save(file, points)
    run = trained(tmp_path / "run", spec=spec, steps=2)
    former = run.lock["data"]
    resumed(run, "train.steps=3")  # as they were
    assert not caplog.messages and run.lock["splits"] == {"train": 57, "test": 7}
    np.save(file, points[:40] + 100)
    resumed(run, "train.steps=4")
    now = Run.open(run.path).lock["data"]
    change = f"data was 57 train, 7 test samples, hash {former}, now 37 train, 3 test samples, hash {now}"
    assert caplog.messages == [
        f"{run.path} was trained on other data, and is resumed with these: {change}; to train on these alone, "
        "overwrite the run"
    ]
    step, told = read_revisions(run)[-1]
    assert step == 3 and told[-1] == change.replace("data was ", "data: ").replace(", now ", " -> ") and former != now
    resumed(run, "train.steps=5")
    assert len(caplog.messages) == 1


def test_data_of_other_types_are_named_where_the_weights_do_not_fit(tmp_path: Path) -> None:
    """The fault: the refusal was cut off behind the names of the weights."""
    files = {name: tmp_path / f"{name}.npy" for name in ("x", "labels")}
    np.save(files["x"], np.random.default_rng(0).standard_normal((64, 2)).astype(np.float32))
    np.save(files["labels"], np.arange(64) % 2)
    data = use("array", path=str(files["x"]), fields={"labels": str(files["labels"])})
    spec = SPEC.with_value("data", data).with_value("model.conditioner", "label")
    run = trained(tmp_path / "run", spec=spec, steps=2)
    np.save(files["labels"], np.arange(64) % 3)
    before = contents(run.path)
    cause = r"its data have changed \(fields.labels.classes was 2, now 3\): train a new run$"
    with pytest.raises(ValueError, match=rf"has weights that do not fit the model: conditioner\..*; {cause}"):
        resumed(run)
    assert contents(run.path) == before


def test_other_tensors_are_warned_of_and_those_of_an_older_lock_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    points, options = torch.randn(32, 2), {"batch_size": 8, "device": "cpu", "checkpoints": {"every": 2}}

    def train_on(points: torch.Tensor, steps: int, resume: bool = True) -> Run:
        model = GAN(TensorType((2,)), generator="mlp", discriminator="mlp", z_dim=2)
        return fit(model, points, tmp_path / "run", steps=steps, resume=resume, **options)

    run = train_on(points, 2, resume=False)
    train_on(points + 100, 4)
    (message,) = caplog.messages
    assert "was trained on other data" in message
    assert [change.split(":")[0] for change in read_revisions(run)[-1][1]] == ["train.steps", "data"]
    lock = {name: value for name, value in Run.open(run.path).lock.items() if name not in ("splits", "data")}
    (run.path / LOCK).write_bytes(encode(lock))
    train_on(points, 6)
    assert caplog.messages == [message]


STAGED = Spec.from_yaml(
    TEXT.replace("{steps: 4, b", "{stages: [{players: ['*'], steps: 2}, {players: ['*'], steps: 4}], b")
)


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("change", "trained_steps", "message"),
    [
        (
            "train.stages[0].steps=3",
            4,
            "got 3 in a run that has trained with 2, expected the same, since the stage has",
        ),
        ("train.stages[0].steps=null", 4, "got absent in a run that has trained with 2, expected the same"),
        (
            "train.stages[1].steps=3",
            4,
            "got 3 in a run that has trained with 4, expected at least the 4 that the stage",
        ),
        (
            "train.stages[0].steps=0",
            1,
            "got 0 in a run that has trained with 2, expected at least the 1 that the stage",
        ),
    ],
)
def test_steps_that_have_been_trained_stay(change: str, trained_steps: int, message: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "train.checkpoints.every=1", spec=STAGED)
    if trained_steps == 1:
        run = trained(tmp_path / "run", "train.checkpoints.every=1", spec=STAGED, steps=1, overwrite=True)
        shutil.rmtree(run.checkpoints / "step-00000002")
    before = contents(run.path)
    with pytest.raises(SpecError, match=re.escape(f"{change.partition('=')[0]}: {message}")) as error:
        resumed(run, change, "train.log.every=2")
    assert error.value.problems[0].hint and contents(run.path) == before


@pytest.mark.wide
def test_steps_of_the_stage_at_hand_and_of_later_ones_may_change(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", "train.stages[1].steps=6", spec=STAGED)
    run = trained(tmp_path / "run", spec=STAGED, steps=2)
    shutil.rmtree(run.checkpoints / "step-00000004")
    resumed(run, "train.stages[1].steps=5")
    resumed(run, "train.stages[1].steps=6")
    one, other = (store.load(r.checkpoints / "step-00000008").tensors for r in (run, whole))
    assert all(torch.equal(value, one[name][key]) for name in other for key, value in other[name].items())
    with pytest.raises(
        SpecError, match=r"train\.steps: got 3 in a run that has trained with 4, expected at least the 4"
    ):
        resumed(trained(tmp_path / "plain"), "train.steps=3")


@pytest.mark.wide
def test_steps_that_an_ended_stage_shares_are_not_lowered(tmp_path: Path) -> None:
    shared = Spec.from_yaml(
        TEXT.replace("{steps: 4, b", "{steps: 2, stages: [{players: ['*']}, {players: ['*'], steps: 4}], b")
    )
    run = trained(tmp_path / "run", spec=shared)
    message = r"train\.steps: got 1 in a run that has trained with 2, expected at least the 2 that a stage before has"
    with pytest.raises(SpecError, match=message):
        resumed(run, "train.steps=1")
    resumed(run, "train.stages[1].steps=5")


@pytest.mark.wide(1)
@pytest.mark.parametrize("number", [2, 3])
def test_stages_that_steps_cut_short_are_warned_of(
    number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The fault: a stage that `--steps` had ended early stayed short without a word."""
    stages = ", ".join(["{players: ['*'], steps: 3}"] * number)
    spec = Spec.from_yaml(TEXT.replace("{steps: 4, b", f"{{stages: [{stages}], b"))
    run = trained(tmp_path / "run", spec=spec, steps=1)
    resumed(run, steps=1)
    assert not caplog.messages
    resumed(run, steps=2)
    ended = {2: "stage 0 has ended after 1 of 2 steps", 3: "stages 0 to 1 have ended after 2 of 4 steps"}[number]
    (message,) = caplog.messages
    assert message.startswith(
        f"{run.path}: {ended}; a stage that has ended is not resumed: to train it in full, branch "
    )


MEASURED = ("evaluate={metrics: [fd], num: 16}",)


@pytest.mark.wide(1)
@pytest.mark.parametrize("change", ["model.sampler.steps=2", "evaluate.metrics=[prdc]"])
def test_a_finished_run_is_measured_again_after_a_change(change: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *MEASURED)
    path, step = locate_report(run.path), run.kept
    first = Report.read(path)
    resumed(run, change, evaluate=False)
    assert Report.read(path) == first  # killed before it could measure
    resumed(run)
    now = Report.read(path)
    assert now.scores == evaluate_run(Run.open(run.path)).scores != first.scores
    assert now.spec == Run.open(run.path).lock["spec"] != first.spec and run.kept == step
    written = path.stat().st_mtime_ns
    resumed(run)
    assert path.stat().st_mtime_ns == written


@pytest.mark.wide
def test_a_report_of_an_earlier_version_is_that_of_the_first_spec(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *MEASURED)
    path = locate_report(run.path)
    former = json.loads(path.read_text())
    del former["spec"]
    path.write_text(json.dumps(former))
    resumed(run)
    assert Report.read(path).spec is None
    resumed(run, "model.sampler.steps=2")
    assert Report.read(path).spec == Run.open(run.path).lock["spec"]


@pytest.mark.wide
def test_the_best_checkpoint_is_judged_anew_by_another_criterion(tmp_path: Path) -> None:
    watch = "evaluate={watch: {every: 1, num: 16, metrics: [%s]}}"

    def read_cursor(name: str) -> dict[str, Any]:
        return dict(store.load(run.checkpoints / name).state["cursor"])

    run = trained(tmp_path / "run", watch % "fd", steps=2, evaluate=False)
    begun = read_cursor("step-00000002")
    resumed(run, watch % "fd", "evaluate.watch.metrics=[prdc]", evaluate=False)
    scores = [row["scores"] for row in run.read_metrics() if "scores" in row]
    rows = [row["precision (pixels)"] for row in scores[2:]]
    cursor = read_cursor("step-00000004")
    assert begun["best"] > 0 and cursor["best"] == pytest.approx(-rows[-1]) and len(rows) == 2
    assert cursor["best_name"] == "step-00000004" and "precision" in cursor["criterion"]
    resumed(run, "train.checkpoints.best=denoiser/denoising", "train.steps=6", evaluate=False)
    cursor = read_cursor("step-00000006")
    assert cursor["criterion"] == "denoiser/denoising" and cursor["best"] > 0
