"""A branch begins at a checkpoint of another run, with changed settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import distributed as dist

from modkit import Run, Spec, SpecError, TensorType, branch, fit, load, resume, train, use
from modkit.cli.app import app
from modkit.models import GAN
from modkit.runs import checkpoint as store
from tests.run_folders import contents
from tests.training.test_changes import TEXT

SPEC = Spec.from_yaml(TEXT)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return train(SPEC, tmp_path / "run", overrides=["train.lr_schedule=cosine"])


def read_optimizer(run: Run, name: str) -> dict[str, Any]:
    state: dict[str, Any] = store.load(run.checkpoints / name).state["players"]["denoiser"]["optimizer"]
    return dict(state["groups"][0])


@pytest.mark.wide
def test_without_changes_a_branch_computes_what_the_run_did(run: Run, tmp_path: Path) -> None:
    before = contents(run.path)
    made = branch(run, tmp_path / "branch", step=2)
    assert contents(run.path) == before
    assert made.finished and made.lock["branched"] == {"run": str(run.path), "checkpoint": "step-00000002"}
    assert [row["step"] for row in made.read_metrics()] == [3, 4]
    assert made.read_metrics() == run.read_metrics()[2:]
    assert torch.equal(load(made).sample(4, seed=0), load(run).sample(4, seed=0))
    for name in ("model", "ema", "optimizer-denoiser"):
        one, other = (store.load(r.checkpoints / "step-00000004").tensors[name] for r in (made, run))
        assert all(torch.equal(one[key], other[key]) for key in other)
    assert read_optimizer(made, "step-00000002") == read_optimizer(run, "step-00000002")


def test_the_learning_rate_follows_the_new_schedule_at_that_step(run: Run, tmp_path: Path) -> None:
    made = branch(run, tmp_path / "a", ["train.optimizer.lr=1.0", "train.steps=8"], step=2)
    group = read_optimizer(made, "step-00000002")
    assert group["initial_lr"] == 1.0
    fresh = train(
        SPEC, tmp_path / "b", overrides=["train.lr_schedule=cosine", "train.optimizer.lr=1.0", "train.steps=8"]
    )
    assert group["lr"] == read_optimizer(fresh, "step-00000002")["lr"] < 1
    moments = store.load(made.checkpoints / "step-00000002").tensors["optimizer-denoiser"]
    kept = store.load(run.checkpoints / "step-00000002").tensors["optimizer-denoiser"]
    assert moments.keys() == kept.keys() and all(torch.equal(moments[key], kept[key]) for key in kept)
    assert made.find_checkpoint_name() == "step-00000008"


@pytest.mark.wide
def test_a_branch_that_has_nothing_to_train_says_so(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    branch(run, tmp_path / "more", ["train.steps=5"])
    branch(run, tmp_path / "earlier", step=2)
    assert "trains no step" not in caplog.text
    branch(run, tmp_path / "same", ["train.optimizer.lr=1.0"])
    assert "step-00000004 is at the end of training, so the branch trains no step" in caplog.text


@pytest.mark.wide
def test_a_run_of_tensors_is_branched_on_data_that_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The fault: a warning that no step was left came before the refusal, which said nothing of how to name data."""
    model = GAN(TensorType((2,)), generator="mlp", discriminator="mlp", z_dim=2)
    made = fit(model, torch.zeros(8, 2), tmp_path / "run", steps=1, batch_size=4, device="cpu")
    caplog.clear()
    with pytest.raises(
        ValueError, match="run: expected a spec with `data`, got one without: name them, as data=digits"
    ):
        branch(made, tmp_path / "branch")
    assert not caplog.text and not (tmp_path / "branch").exists()
    assert branch(made, tmp_path / "branch", ["data=ring", "train.steps=2"]).find_checkpoint_name() == "step-00000002"


@pytest.mark.wide
def test_another_optimizer_begins_without_moments(run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = branch(run, tmp_path / "branch", ["train.optimizer=sgd", "train.batch_size=8"], step=2)
    assert store.load(made.checkpoints / "step-00000002").tensors["optimizer-denoiser"] == {}
    assert "denoiser begins with another optimizer" in caplog.text and made.finished
    drawn = load(made, checkpoint="step-00000002").sample(4, seed=0)
    assert torch.equal(drawn, load(run, checkpoint="step-00000002").sample(4, seed=0))


@pytest.mark.wide
def test_a_branch_in_float16_begins_with_new_scales_and_keeps_them(run: Run, tmp_path: Path) -> None:
    made = branch(run, tmp_path / "branch", ["train.precision=fp16"], step=2)
    again = branch(made, tmp_path / "again", ["train.steps=6"], step=4)
    for one, step in ((made, 4), (again, 6)):
        state = store.load(one.checkpoints / f"step-{step:08d}").state["players"]["denoiser"]
        assert state["loss_scale"] == {"value": 2.0**16, "steps": step - 2}


@pytest.mark.wide
def test_an_average_can_begin_in_a_branch(tmp_path: Path) -> None:
    run = train(SPEC, tmp_path / "run", overrides=["train.ema=0"])
    made = branch(run, tmp_path / "branch", ["train.ema=0.9"], step=2)
    begun = store.load(made.checkpoints / "step-00000002").tensors
    assert all(torch.equal(begun["ema"][key], begun["model"][key]) for key in begun["ema"])
    assert made.finished


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("overrides", "step", "message"),
    [
        (
            ["model.network.width=9"],
            2,
            "branch expects a spec that keeps the weights of .*step-00000002, got others at net",
        ),
        ([], 3, "has no checkpoint 'step-00000003'; available: step-00000000, step-00000002, step-00000004"),
        (["train.steps=-1"], 2, "train.steps"),
        (["model.nothing=1"], 2, "unknown key 'nothing'"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    overrides: list[str], step: int, message: str, run: Run, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, SpecError), match=message):
        branch(run, tmp_path / "branch", overrides, step=step)
    assert not (tmp_path / "branch").exists()
    with pytest.raises(ValueError, match="already holds a run; name another directory$"):
        branch(run, run.path)


@pytest.mark.wide
def test_a_branch_is_resumed_by_its_own_spec(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "branch"
    arguments = ["branch", run.path, "train.optimizer.lr=1e-4", "--from", 2, "--steps", 3, "--out", out]
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == 0 and f"run: {out}" in result.output
    assert Run.open(out).find_checkpoint_name() == "step-00000003"
    result = CliRunner().invoke(app, ["resume", str(out)])
    assert result.exit_code == 0 and Run.open(out).find_checkpoint_name() == "step-00000004"
    assert read_optimizer(Run.open(out), "step-00000004")["initial_lr"] == 1e-4


@pytest.mark.wide
def test_a_branch_begins_at_the_last_checkpoint_that_is_whole(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run.checkpoints / "step-00000004" / "optimizer-denoiser.safetensors").write_bytes(b"")
    made = branch(run, tmp_path / "branch")
    assert made.lock["branched"]["checkpoint"] == store.list_names(run.checkpoints)[-2]
    assert "step-00000004 is damaged (optimizer-denoiser.safetensors has 0 bytes" in caplog.text


@pytest.mark.wide
def test_a_branch_of_a_run_that_skipped_steps_goes_on_as_the_run_does(tmp_path: Path) -> None:
    changes = ["train.steps=8", "train.lr_schedule=cosine", "train.players={denoiser: {skip: 1.35}}"]
    run = train(SPEC, tmp_path / "run", overrides=[*changes, "train.optimizer.lr=0.05"])
    begun = store.load(run.checkpoints / "step-00000004").state["players"]["denoiser"]
    assert 0 < begun["skipped"] < 4 and begun["lr_schedule"]["last_epoch"] == 4 - begun["skipped"]
    made = branch(run, tmp_path / "branch", step=4)
    assert store.load(made.checkpoints / "step-00000004").state["players"]["denoiser"] == begun
    one, other = (store.load(r.checkpoints / "step-00000008").tensors["model"] for r in (made, run))
    assert all(torch.equal(one[key], other[key]) for key in other)


@pytest.mark.wide
def test_an_average_goes_on_under_another_name(tmp_path: Path) -> None:
    """What `std` names is one of the averages that the run has kept beside, and what it named is kept beside now."""
    ema = "train.ema={std: %s, every: 2}"
    run = train(SPEC, tmp_path / "run", overrides=[ema % 0.1])
    fresh = train(SPEC, tmp_path / "fresh", overrides=[ema % 0.05])
    made = branch(run, tmp_path / "branch", ["train.ema.std=0.05"], step=2)
    for folder, step in (("checkpoints", 2), ("checkpoints", 4), ("averages", 4)):
        mine, theirs = (store.load(r.path / folder / f"step-{step:08d}").tensors for r in (made, fresh))
        assert mine.keys() == theirs.keys() and {"ema-0.1"} <= mine.keys()
        for name in filter(lambda name: name.startswith("ema"), theirs):
            assert all(torch.equal(mine[name][key], value) for key, value in theirs[name].items())


@pytest.mark.wide
def test_an_average_that_changes_goes_on_from_the_one_in_use(tmp_path: Path) -> None:
    run = train(SPEC, tmp_path / "run", overrides=["train.ema=0.5"])
    made = branch(run, tmp_path / "branch", ["train.ema=0.9"], step=2)
    begun, former = (store.load(r.checkpoints / "step-00000002").tensors["ema"] for r in (made, run))
    assert all(torch.equal(begun[key], former[key]) for key in former)


@pytest.mark.wide
def test_what_several_processes_trained_goes_on_in_one_and_keeps_their_engine(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    overrides = ["train.engine={use: ddp, timeout: 77, unused: true}", "train.lr_schedule=cosine"]
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    with monkeypatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        several = train(SPEC, tmp_path / "several", overrides=overrides)
    dist.destroy_process_group()
    engine = use("ddp", timeout=77, unused=True, sync_batch_norm=False)
    made = branch(several, tmp_path / "branch", step=2)
    assert torch.equal(load(made).sample(4, seed=0), load(run).sample(4, seed=0))
    again = resume(several, ["train.steps=6"])
    for one in (several, made, again):
        assert Spec.from_yaml(one.spec_text).at("train.engine") == engine
    (revision,) = again.lock["revisions"]
    assert [change["path"] for change in revision["changes"]] == ["train.steps"] and revision["step"] == 4
