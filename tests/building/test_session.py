import shutil

import pytest
import torch

from modkit import Spec, SpecError, load, train, use
from modkit.runs import checkpoint as store
from modkit.runs.run import Run
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


def test_what_has_no_weights_may_be_overridden_on_loading(tmp_path):
    run = train(spec(DENOISER), tmp_path / "run")
    assert load(run).sampler.times().numel() == 4
    other = load(run, ["model.sampler=ancestral", "model.sampler.steps=7"])
    assert type(other.sampler).__name__ == "Ancestral" and other.sampler.times().numel() == 8
    assert torch.equal(other.network.out.weight, load(run).network.out.weight)
    with pytest.raises(SpecError, match="nonsense"):
        load(run, ["model.sampler=nonsense"])
    message = r"(?s)leave its weights as they are, got model.network.width=9: .*size mismatch"
    with pytest.raises(ValueError, match=message):
        load(run, ["model.network.width=9"])


def test_a_run_without_checkpoints_and_a_folder_without_a_run_cannot_be_loaded(tmp_path):
    run = train(spec(VAE), tmp_path / "run")
    shutil.rmtree(run.checkpoints)
    with pytest.raises(ValueError, match="has no intact checkpoint"):
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
    with pytest.raises(ValueError, match="steps expects at least 0, got -1"):
        train(spec(VAE), tmp_path / "c", steps=-1)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "wrong, place",
    [
        ({"device": "nonsense"}, "train.engine"),
        ({"optimizer": use("sgd", nesterov=True)}, "train.optimizer"),
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


def test_a_directory_that_holds_a_run_is_resumed_or_overwritten_and_nothing_else(tmp_path):
    train(spec(VAE), tmp_path / "run", steps=2)
    before = Run.open(tmp_path / "run").load_weights()
    message = "already holds a run; use --resume to continue it or --overwrite to replace it"
    with pytest.raises(ValueError, match=message):
        train(spec(VAE), tmp_path / "run", steps=2)
    with pytest.raises(ValueError, match="was trained with a different `model`"):
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
