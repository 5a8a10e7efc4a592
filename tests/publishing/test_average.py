"""Averages of any width, made after training: equal to those that were tracked."""

import shutil

import pytest
import torch

from modkit import branch, build, fit, load, rebuild_average, train, use
from modkit.runs import checkpoint as store
from modkit.runs.run import Run
from tests.command import run as run_command
from tests.files import write_pictures
from tests.play import VAE, spec
from tests.refusals import check_refusal
from tests.run_folders import contents

QUIET = {"log": {"every": 100}, "samples": {"every": 1000, "num": 4}, "checkpoints": {"every": 1000}}
KEPT = {"std": 0.08, "every": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small training in earnest: the weights move far."""
    path = tmp_path_factory.mktemp("runs") / "vae"
    return train(spec(VAE, steps=240, optimizer=use("adam", lr=3e-3), ema=KEPT, **QUIET), path)


def read(run, group):
    """A group of tensors of a run's last checkpoint."""
    return store.load(run.find_checkpoint()).tensors[group]


def measure(made, expected):
    """The norm of the difference between the weights of two models."""
    return float(torch.stack([(made[name] - value).norm() for name, value in expected.items()]).norm())


@pytest.mark.wide
def test_a_profile_rebuilt_from_kept_averages_equals_the_tracked_one(run, tmp_path):
    """To 1e-3 of how far the average is behind the weights; the profile is not in the span of the kept ones."""
    made = rebuild_average(run, 0.08, tmp_path / "made")
    found, tracked, live = load(made.path).state_dict(), read(run, "ema"), read(run, "model")
    behind = measure(live, tracked)
    assert made.step == 240 and 1e-5 < made.error < 1e-3
    assert measure(found, tracked) < 1e-3 * behind and behind > 0.1
    assert measure(read(run, "ema-0.1"), tracked) > 0.1 * behind
    kept = load(rebuild_average(run, 0.1, tmp_path / "kept").path).state_dict()
    assert measure(kept, read(run, "ema-0.1")) < 1e-6 * behind


def test_an_average_may_end_earlier(run, tmp_path):
    made = rebuild_average(run, 0.1, tmp_path / "made", step=120)
    kept = store.load(run.averages / "step-00000120").tensors["ema-0.1"]
    found = load(made.path).state_dict()
    assert made.step == 120
    assert all(torch.allclose(found[name], value, rtol=1e-6, atol=1e-8) for name, value in kept.items())


def test_it_is_an_exported_run_that_other_commands_read(run, tmp_path):
    copy = tmp_path / "vae"
    shutil.copytree(run.path, copy)
    before = contents(copy)
    told, _ = run_command("ema", copy, "--std", 0.08)
    made = Run.open(tmp_path / "vae-std-0.08")
    assert f"exported: {made.path}, the average of std 0.08 at step 240" in told
    assert contents(copy) == before  # the run stays as it is
    assert made.exported and made.kept == ["step-00000240-std-0.08"]
    assert made.lock["average"] == {"std": 0.08, "step": 240, "kept": 80, "error": made.lock["average"]["error"]}
    run_command("sample", made.path, "-n", 4)
    _, refusal = run_command("ema", copy, "--std", 0.1, "--step", 3, status=2)
    assert "keeps no averages of step 3, expected one of: 6, 12" in refusal


def test_what_cannot_be_rebuilt_is_refused(run, tmp_path):
    check_refusal(r"Power expects std to be in \(0, 0.2887\), got 0.5", rebuild_average, run, 0.5)
    plain = train(spec(VAE, steps=1), tmp_path / "plain")
    check_refusal("plain keeps no averages: train with train.ema={std: 0.1, every: 500}", rebuild_average, plain, 0.1)
    shutil.copytree(run.path, tmp_path / "torn")
    (tmp_path / "torn" / "averages" / "step-00000060" / "ema-0.1.safetensors").write_bytes(b"")
    check_refusal("checkpoint .*step-00000060: ema-0.1.safetensors", rebuild_average, tmp_path / "torn", 0.1)
    stages = [{"players": ["*"], "steps": 4, "ema": {"every": 2}}, {"players": ["*"], "steps": 1}]
    later = train(spec(VAE, stages=stages), tmp_path / "later")
    check_refusal("later keeps averages of stage 0, and has since trained stage 1", rebuild_average, later, 0.1)


def test_the_averages_of_a_stage_replace_those_of_the_one_before(tmp_path):
    stages = [{"players": ["*"], "steps": 5}, {"players": ["*"], "steps": 4}]
    made = train(spec(VAE, stages=stages, ema={"std": 0.1, "every": 2, "kept": [0.1, 0.2]}), tmp_path / "run")
    assert store.list_names(made.averages) == ["step-00000006", "step-00000008", "step-00000009"]
    kept = store.load(made.averages / "step-00000009")
    assert (kept.state["stage"], kept.state["updates"]) == (1, 4) and list(kept.tensors) == ["ema-0.1", "ema-0.2"]
    assert list(store.load(made.find_checkpoint()).tensors)[:3] == ["model", "ema", "ema-0.2"]


def test_running_statistics_are_those_that_training_measures(tmp_path):
    net = use("dcgan", channels=4)
    gan = use("gan", generator=net, discriminator=net, z_dim=4)
    made = train(spec(gan, steps=6, ema={"std": 0.1, "every": 3}), tmp_path / "run")
    found = load(rebuild_average(made, 0.1).path).state_dict()
    for name, value in read(made, "ema").items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert any("running_var" in name for name in read(made, "ema"))


def test_running_statistics_that_were_frozen_by_hand_stay(tmp_path):
    norms = {"width": 8, "depth": 1, "norm": "batch"}
    written = spec(use("autoencoder", encoder=use("mlp", **norms), decoder=use("mlp", **norms)))
    model = build(written)
    model.encoder.requires_grad_(False)
    settings = {"steps": 4, "batch_size": 8, "device": "cpu", "ema": {"std": 0.1, "every": 2}}
    made = rebuild_average(fit(model, written.data, tmp_path / "run", **settings), 0.1)
    found, kept = (one.state_dict() for one in (load(made.path), model))
    names = [name for name in kept if name.startswith("encoder.") and "running" in name]
    assert names and all(torch.equal(found[name], kept[name]) for name in names)


def test_a_branch_may_begin_to_keep_averages(tmp_path):
    made = train(spec(VAE, steps=4, ema=0.9, checkpoints={"every": 2}), tmp_path / "run")
    begun = branch(made, tmp_path / "branch", ["train.ema={std: 0.1, every: 1}"], step=2)
    assert store.list_names(begun.averages) == ["step-00000003", "step-00000004"]
    first = store.load(begun.checkpoints / "step-00000002").tensors
    assert all(torch.equal(value, first["model"][name]) for name, value in first["ema-0.05"].items())
    assert rebuild_average(begun, 0.05, tmp_path / "out").error < 1e-6


def test_paths_of_data_stay_so_that_it_can_be_measured(tmp_path):
    write_pictures(tmp_path / "pictures")
    data = use("image-folder", root=str(tmp_path / "pictures"), size=8)
    made = train(spec(VAE, data, steps=2, batch_size=2, ema={"every": 1}), tmp_path / "run")
    rebuilt = Run.open(rebuild_average(made, 0.1).path)
    assert str(tmp_path / "pictures") in rebuilt.spec_text
