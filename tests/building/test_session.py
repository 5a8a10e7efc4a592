import math
import shutil

import pytest
import torch

from modkit import Spec, SpecError, fit, load, train, use
from modkit.data import Digits
from modkit.diffusion.time_sampling import LogNormal
from modkit.kinds import Schedule
from modkit.models import Diffusion
from modkit.runs import checkpoint as store
from modkit.runs.lock import encode
from modkit.runs.run import Run
from modkit.types import TensorType
from tests.play import VAE, spec

DENOISER = use("diffusion", network=use("mlp", width=8, depth=1), sampler=use("ddim", steps=3))


def test_a_run_is_loaded_with_the_averages_of_its_last_stage(tmp_path):
    run = train(spec(VAE, ema=0.5, checkpoints={"every": 2, "keep": 9}), tmp_path / "run")
    kept = store.load(run.checkpoints / "step-00000004").tensors
    model = load(tmp_path / "run")
    assert not torch.equal(kept["ema"]["decoder.out.weight"], kept["model"]["decoder.out.weight"])
    assert all(torch.equal(value, kept["ema"][name]) for name, value in model.state_dict().items())
    assert not model.training and torch.equal(model.sample(3, seed=0), load(run).sample(3, seed=0))
    shutil.rmtree(run.checkpoints / "step-00000004")
    middle = store.load(run.checkpoints / "step-00000002").tensors["ema"]
    assert all(torch.equal(value, middle[name]) for name, value in load(run).state_dict().items())


def test_a_weight_under_two_names_is_averaged_under_both(tmp_path):
    shared, average = torch.zeros(2), torch.ones(2)
    run = Run.create(tmp_path / "run", spec(VAE), {})
    tensors = {"model": {"a": shared, "b": shared, "c": shared.clone()}, "ema": {"a": average}}
    store.save(run.checkpoints, "step-1", store.Checkpoint(tensors, {}))
    weights = {name: value.tolist() for name, value in run.load_weights().items()}
    assert weights == {"a": [1, 1], "b": [1, 1], "c": [0, 0]}


@pytest.mark.wide
def test_what_has_no_weights_may_be_overridden_on_loading(tmp_path):
    run = train(spec(DENOISER), tmp_path / "run")
    assert load(run).sampler.times().numel() == 4
    other = load(run, ["model.sampler=ancestral", "model.sampler.steps=7"])
    assert type(other.sampler).__name__ == "Ancestral" and other.sampler.times().numel() == 8
    assert torch.equal(other.network.out.weight, load(run).network.out.weight)
    with pytest.raises(SpecError, match="nonsense"):
        load(run, ["model.sampler=nonsense"])
    with pytest.raises(SpecError, match="<override 1>:1:1: train.stepps: got an unknown key"):
        load(run, ["train.stepps=3"])
    with pytest.raises(SpecError, match=r"model\.network\.width: got 9 in a run that has trained with 8"):
        load(run, ["model.network.width=9"])


def test_a_run_without_checkpoints_and_a_folder_without_a_run_cannot_be_loaded(tmp_path):
    run = train(spec(VAE), tmp_path / "run")
    shutil.rmtree(run.checkpoints)
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load(run)
    with pytest.raises(ValueError, match="expects the directory of a run"):
        load(tmp_path)


def test_a_run_holds_the_resolved_spec_and_what_it_was_made_with(tmp_path):
    run = train(spec(VAE, seed=5), tmp_path / "run", steps=1)
    resolved = Spec.from_yaml(run.spec_text)
    assert resolved.model["likelihood"].use == "mse" and resolved.train["seed"] == 5
    assert run.lock["seed"] == 5 and Run.open(run.path).lock == run.lock
    assert run.finished and store.list_names(run.checkpoints)[-1] == "step-00000001"


def test_steps_cap_every_stage(tmp_path):
    stages = [{"players": ["*"], "steps": 1}, {"players": ["*"], "steps": 9}, {"players": ["*"]}]
    rows = train(spec(VAE, stages=stages, steps=9), tmp_path / "a", steps=2).read_metrics()
    assert [(row["stage"], row["step"]) for row in rows] == [(0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]
    assert train(spec(VAE), tmp_path / "b", steps=0).read_metrics() == []
    with pytest.raises(ValueError, match="Training expects steps to be at least 0, got -1"):
        train(spec(VAE), tmp_path / "c", steps=-1)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "wrong, place",
    [
        ({"device": "nonsense"}, "train.device"),
        ({"optimizer": use("sgd", momentum=0.0, nesterov=True)}, "train.optimizer"),
        ({"players": {"*": {"optimizer": use("adam", betas=[0.5])}}}, "train.players"),
        ({"lr_schedule": use("cosine", floor=2.0)}, "train.lr_schedule"),
        ({"loggers": [use("tensorboard", every=0)]}, "train.loggers"),
        ({"stages": [{"players": ["nobody"]}]}, "train.stages"),
        ({"batch_size": 7, "accumulate": 2}, "train"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused_is_refused_before_anything_is_written(tmp_path, wrong, place):
    with pytest.raises(SpecError) as caught:
        train(spec(VAE, **wrong), tmp_path / "run")
    assert len(caught.value.problems) == 1 and caught.value.problems[0].path.startswith(place)
    assert not (tmp_path / "run").exists()


@pytest.mark.wide
def test_a_directory_that_holds_a_run_is_resumed_or_overwritten_and_nothing_else(tmp_path):
    train(spec(VAE), tmp_path / "run", steps=2)
    before = Run.open(tmp_path / "run").load_weights()
    message = (
        r"already holds a run; use --resume \(in Python resume=True\) to continue it or --overwrite \(overwrite=True\)"
    )
    with pytest.raises(ValueError, match=message):
        train(spec(VAE), tmp_path / "run", steps=2)
    with pytest.raises(ValueError, match="model: got diffusion.*, expected autoencoder.*, as in the call that began"):
        train(spec(DENOISER), tmp_path / "run", resume=True)
    again = train(spec(VAE), tmp_path / "run", steps=2, resume=True)
    assert all(torch.equal(value, before[name]) for name, value in again.load_weights().items())
    assert len(again.read_metrics()) == 2
    train(spec(VAE, seed=1), tmp_path / "run", steps=2, overwrite=True)
    after = Run.open(tmp_path / "run").load_weights()
    assert not any(torch.equal(value, before[name]) for name, value in after.items() if value.any())


def test_more_steps_go_on_with_a_finished_run(tmp_path):
    train(spec(VAE), tmp_path / "a", steps=2)
    longer = train(spec(VAE), tmp_path / "a", steps=4, resume=True)
    straight = train(spec(VAE), tmp_path / "b", steps=4)
    assert longer.read_metrics() == straight.read_metrics() and longer.finished
    want = straight.load_weights()
    assert all(torch.equal(value, want[name]) for name, value in longer.load_weights().items())


@pytest.mark.wide
def test_trained_pieces_have_their_weights_when_a_run_is_resumed_before_its_first_checkpoint(tmp_path):
    piece = train(spec(VAE), tmp_path / "vae", steps=1).load_weights()
    latent = spec(use("latent", autoencoder=use("run", path=str(tmp_path / "vae")), prior=DENOISER))
    run = train(latent, tmp_path / "run", steps=1)
    straight = run.load_weights()
    shutil.rmtree(run.checkpoints)
    resumed = train(latent, tmp_path / "run", steps=1, resume=True).load_weights()
    assert all(torch.equal(resumed[f"autoencoder.{name}"], value) for name, value in piece.items())
    assert all(torch.equal(resumed[name], value) for name, value in straight.items())


def test_training_needs_data(tmp_path):
    with pytest.raises(ValueError, match="training expects a spec with `data`"):
        train(Spec(model=VAE, x={"shape": [1, 8, 8]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


EDM = use(
    "diffusion",
    network=use("mlp", width=8, depth=1),
    schedule="edm",
    times="log-normal",
    parametrization="edm",
    sampler=use("heun", steps=3),
)
CONSTANTS = {
    "schedule": use("edm", sigma_min=0.002, sigma_max=80.0),
    "times": use("log-normal", mean=-1.2),
    "parametrization": use("edm", sigma_data=0.5),
}


def forget(run, **x):
    """Changes the type in a run's lock, as if it had been made for other data, or by a version without deviations."""
    kept = {key: value for key, value in run.lock["x"].items() if key != "std"}
    (run.path / "modkit.lock").write_bytes(encode({**run.lock, "x": {**kept, **x}}))
    return Run.open(run.path)


@pytest.mark.wide
def test_a_run_keeps_the_deviation_of_the_data_it_was_trained_on(tmp_path, monkeypatch):
    run = train(spec(EDM), tmp_path / "run")
    std = Digits(size=8).x.std
    assert run.lock["x"]["std"] == std
    samples = load(run).sample(3, seed=0)
    other = load(run, ["data={use: binarized, data: {use: digits, size: 8}}"])
    assert other.parametrization.sigma_data == std and torch.equal(other.sample(3, seed=0), samples)
    monkeypatch.setattr("modkit.data.digits._read", None)  # the data are gone
    loaded = load(run)
    assert loaded.parametrization.sigma_data == std and loaded.schedule.sigma_max == 160 * std
    assert torch.equal(loaded.sample(3, seed=0), samples)
    assert load(forget(run, std=0.25)).schedule.sigma_max == 40


@pytest.mark.wide
def test_a_run_of_local_parts_is_loaded_by_its_spec_without_its_data(tmp_path, monkeypatch):
    class Times(LogNormal):
        """Log-normal levels."""

    written = spec(use("diffusion", **{**EDM.params, "times": use(Times)}))
    run = train(written, tmp_path / "run", steps=1)
    samples = load(run, spec=written).sample(3, seed=0)
    monkeypatch.setattr("modkit.data.digits._read", None)  # the data are gone
    assert torch.equal(load(run, spec=written).sample(3, seed=0), samples)
    assert load(forget(run, std=0.25), spec=written).schedule.sigma_max == 40
    with pytest.raises(SpecError, match="data: the data digits cannot be built"):  # of others, the type is read
        load(run, ["data.size=16"], spec=written)


@pytest.mark.wide
def test_a_run_made_before_keeps_its_constants(tmp_path):
    run = train(spec(use("diffusion", **{**EDM.params, **CONSTANTS})), tmp_path / "run")
    samples = load(run).sample(3, seed=0)
    old = load(forget(run))
    assert (old.schedule.sigma_min, old.schedule.sigma_max) == (0.002, 80.0)
    assert (old.times.mean, old.parametrization.sigma_data) == (-1.2, 0.5)
    assert torch.equal(old.sample(3, seed=0), samples)


def test_a_run_is_resumed_with_the_deviation_that_it_stores(tmp_path):
    seen = []

    class Watched(LogNormal):
        """Log-normal levels whose mean is written down."""

        def __init__(self, schedule: Schedule, x: TensorType | None = None) -> None:
            super().__init__(schedule, x)
            seen.append(self.mean)

    model = use("diffusion", **{**EDM.params, "times": use(Watched)})
    forget(train(spec(model, steps=2), tmp_path / "run"), std=0.25)
    train(spec(model, steps=4), tmp_path / "run", resume=True)
    assert seen[-1] == pytest.approx(math.log(0.5) - 1.2)


@pytest.mark.parametrize("x", [Digits(size=8).x, TensorType((1, 8, 8), (-1, 1))], ids=["known", "unknown"])
def test_a_composed_model_is_loaded_with_the_deviation_it_was_composed_for(x, tmp_path):
    model = Diffusion(x, **EDM.params)
    run = fit(model, use("digits", size=8), tmp_path / "run", steps=1, batch_size=4, device="cpu")
    assert run.lock["x"].get("std") == x.std
    assert load(run).parametrization.sigma_data == model.parametrization.sigma_data == (x.std or 0.5)
    assert torch.equal(load(run).sample(2, seed=0), model.eval().sample(2, seed=0))
