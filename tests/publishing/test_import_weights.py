import pytest
import torch

from modkit import Spec, SpecError, build, load
from modkit.evaluation.evaluate_run import evaluate_run
from modkit.publishing.import_weights import import_weights
from modkit.runs.run import Run
from modkit.specs.overrides import apply
from tests.command import run as run_command

SPEC = Spec.from_yaml("""
name: adopted
x: {shape: [1, 8, 8], range: [-1, 1], fields: {labels: {shape: [], classes: 10}}}
model:
  use: diffusion
  network: {use: mlp, width: 8, depth: 1}
  conditioner: {use: label, width: 4}
  sampler: {use: ddim, steps: 2}
""")


@pytest.fixture
def weights():
    draw = torch.Generator().manual_seed(3)
    return {
        key: torch.rand(value.shape, generator=draw) if value.is_floating_point() else value
        for key, value in build(SPEC).state_dict().items()
    }


@pytest.mark.wide
def test_an_adopted_run_is_a_finished_one(tmp_path, weights):
    run = import_weights(SPEC, weights, tmp_path / "run", notes={"source": "x.ckpt"})
    assert run.finished and Run.open(tmp_path / "run").finished
    model = load(tmp_path / "run")
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    labels = torch.tensor([1, 2])
    assert model.sample(2, seed=0, labels=labels).shape == (2, 1, 8, 8)
    assert torch.equal(model.sample(2, seed=0), load(run).sample(2, seed=0))
    assert load(run, ["model.sampler.steps=3"]).sampler.times().numel() == 4
    with pytest.raises(ValueError, match="no score was watched"):
        run.find_checkpoint("best")


@pytest.mark.wide
def test_what_weights_fix_is_warned_of_without_what_would_mend_a_new_model(tmp_path, weights, caplog):
    spec, _ = apply(SPEC, ["x.range=null", "model.parametrization=eps"])
    with pytest.raises(SpecError, match=r"model.parametrization: an error of the network grows .*parametrization=v"):
        build(spec)
    run = import_weights(spec, weights, tmp_path / "run")
    for told in (caplog.text, str(run.lock["findings"])):
        assert "an error of the network grows" in told and "parametrization=v" not in told


@pytest.mark.wide
def test_an_adopted_run_is_measured_on_data_that_are_named(tmp_path, weights):
    run = import_weights(SPEC, weights, tmp_path / "run")
    with pytest.raises(ValueError, match="expected a spec with `data`, got one without: name them, as data=digits"):
        evaluate_run(run)
    report = evaluate_run(run, overrides=["data=digits", "data.size=8"], metrics=["fd"], features="pixels", num=20)
    assert all(score.value > 0 for name, score in report.scores.items() if name.startswith("FD")), report.scores
    assert any(name.startswith("FD") for name in report.scores)
    arguments = (run.path, "data=digits", "data.size=8", "--features", "pixels", "--metrics", "fd", "-n", 20)
    assert "FD" in run_command("evaluate", *arguments)[0]


def test_all_that_does_not_fit_is_in_one_error_and_nothing_is_written(tmp_path, weights):
    keys = list(weights)
    weights["more"] = torch.ones(1)
    first, second, *_ = (key for key in keys if key.startswith("network") and key.endswith("weight"))
    weights[first] = weights[first][:1]
    weights[second] = weights[second] * torch.nan
    del weights["conditioner.embedding.weight"]
    with pytest.raises(ValueError) as error:
        import_weights(SPEC, weights, tmp_path / "run")
    said = str(error.value)
    start = "the weights do not fit the model: 1 missing: conditioner.embedding.weight; 1 unknown: more; "
    assert said.startswith(start)
    assert f"1 of another shape: {first} (" in said and said.endswith(f"1 not finite: {second}")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_is_kept(tmp_path, weights):
    import_weights(SPEC, weights, tmp_path / "run")
    with pytest.raises(ValueError, match="already holds a run"):
        import_weights(SPEC, weights, tmp_path / "run")
    import_weights(SPEC, {key: value * 1 for key, value in weights.items()}, tmp_path / "run", overwrite=True)
