"""Runs of classes that have no name: a model that is composed like theirs stands in for what no name loads."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import modkit
from modkit import SpecError
from modkit.comparison.entries import collect
from modkit.data import Ring
from modkit.models import Diffusion
from modkit.publishing.export import export

DATA = partial(Ring, num=64, num_test=64)
TINY = {"batch_size": 8, "device": "cpu", "samples": {"num": 4}, "seed": 1}
MEASURED = {"metrics": ["fd"], "features": "pixels", "num": 32}


class Linear(nn.Module):
    """A denoiser that has no name."""

    def __init__(self, x, out, cond, *, bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(x.numel, out.numel, bias=bias)

    def forward(self, x, cond):
        return self.layer(x)


def make(**options):
    return Diffusion(Ring().x, network=partial(Linear, **options), sampler="ddim")


def fit(path, steps=2, **options):
    with modkit.seeded(1):
        model = make(**options)
    return modkit.fit(model, DATA, path, steps=steps, **TINY)


def have_equal_weights(*runs):
    one, *others = (run.load_weights(run.find_checkpoint_name()) for run in runs)
    return all(torch.equal(one[key], other[key]) for other in others for key in one)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("own") / "run")


def test_a_run_is_resumed_and_branched_to_the_bit(tmp_path):
    whole, begun = fit(tmp_path / "whole", steps=4), fit(tmp_path / "run")
    branched = modkit.branch(begun, tmp_path / "branch", ["train.steps=4"], model=make)
    assert have_equal_weights(whole, modkit.resume(begun, ["train.steps=4"], model=make), branched)
    assert modkit.load(branched, model=make).sample(2, seed=0).shape == (2, 2)


def test_it_is_sampled_and_measured_with_what_only_sampling_reads(run):
    steps = ["model.sampler.steps=3"]
    samples = modkit.sample_run(run, steps, model=make, num=32, device="cpu").x
    model = modkit.load(run, model=make)
    assert torch.equal(samples, model.with_parts(sampler=modkit.use("ddim", steps=3)).sample(32, seed=0))
    report = modkit.evaluate_run(run, overrides=steps, model=make, **MEASURED, device="cpu")
    again = modkit.evaluate_run(run, overrides=steps, model=model, **MEASURED, device="cpu")
    assert report.overrides == tuple(steps) and report.scores == again.scores


def test_it_is_compared_with_another(run, tmp_path):
    other = fit(tmp_path / "other", bias=False)
    models = {run: make, str(other.path): partial(make, bias=False)}
    for one, model in zip((run, other), models.values()):
        modkit.evaluate_run(one, model=model, **MEASURED, device="cpu").save(one.path)
    found = modkit.compare([run, other], tmp_path / "page.html", models=models)
    assert found.entries == ("model (run)", "model (other)")
    with pytest.raises(ValueError, match=r"models and data of the runs that it is given, got one of .*nowhere"):
        collect([run, other], models={**models, "nowhere": make})


def test_it_is_exported(run, tmp_path):
    folder = export(run, tmp_path / "out", model=make, parts=True)
    files = [one / "parts" / "test_restored.py" for one in (run.path, folder)]
    assert [one.read_bytes() for one in files] == [Path(__file__).read_bytes()] * 2
    loaded, model = modkit.load(folder, model=make), modkit.load(run, model=make)
    assert torch.equal(loaded.sample(3, seed=0), model.sample(3, seed=0))
    assert torch.equal(modkit.sample_run(folder, model=make, num=3, device="cpu").x, model.sample(3, seed=0))


@pytest.mark.parametrize("act", [modkit.sample_run, modkit.resume, modkit.evaluate_run])
def test_without_a_model_it_is_said_what_is_missing(act, run):
    with pytest.raises(
        SpecError, match=r"model\.network: got the local .*:Linear, which cannot be .*hand it in, by model="
    ):
        act(run)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (partial(make, bias=False), r"model\.network\.bias: got false in a run that has trained with true"),
        (lambda: Linear(Ring().x, Ring().x, None), "expected a composed model, got a Linear that was not made"),
    ],
)
def test_another_model_is_refused(other, message, run):
    with pytest.raises(ValueError, match=message):
        modkit.sample_run(run, model=other)


def test_other_layouts_and_specs_beside_a_model_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="neither a model nor parts for the layout 'acme' of a plug-in, got one"):
        export(run, tmp_path / "out", to="acme", model=make)
    with pytest.raises(ValueError, match="expected a model or a spec in place of the run's, got both"):
        modkit.evaluate_run(run, model=make, spec=modkit.Spec(model=modkit.use("gan")))


class Named(torch.utils.data.Dataset):
    """Points, of which only training samples are there."""

    def __init__(self, num=16, scale=1.0):
        self.points = scale * torch.linspace(-1, 1, 2 * num).view(num, 2)

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        return self.points[index]


def test_data_that_were_given_as_an_object_are_handed_in_again(tmp_path):
    def fit_object(path, steps):
        with modkit.seeded(1):
            model = make()
        return modkit.fit(model, data, path, data_name="points", steps=steps, **TINY)

    data = {"train": Named(), "test": Named(num=8)}
    whole, begun = fit_object(tmp_path / "whole", 4), fit_object(tmp_path / "run", 2)
    branched = modkit.branch(begun, tmp_path / "branch", ["train.steps=4"], model=make, data=data)
    assert have_equal_weights(whole, modkit.resume(begun, ["train.steps=4"], model=make, data=data), branched)
    assert have_equal_weights(branched, modkit.resume(branched, model=make, data=data))
    assert branched.lock["data_name"] == "points" and branched.lock["splits"] == {"train": 16, "test": 8}
    with pytest.raises(ValueError, match="run: expected a spec with `data`.* or hand in 'points' again, data=…"):
        modkit.evaluate_run(begun, model=make)
    others = {"train": Named(), "test": Named(num=8, scale=2.0)}
    with pytest.raises(ValueError, match="run expects the data that it was trained on, of hash .*, got others of hash"):
        modkit.resume(begun, ["train.steps=5"], model=make, data=others)
    report = modkit.evaluate_run(begun, model=make, data=data, metrics=["fd"], features="pixels", num=8, device="cpu")
    report.save(begun.path)
    (entry,) = collect([begun], models={begun: make}, data={begun: data})
    assert entry.reference == "points" and not entry.changed


class Own(Ring):
    """A data set that has no name."""


def test_a_data_set_without_a_name_is_recorded_and_handed_in_again(tmp_path):
    own, runs = partial(Own, num=64, num_test=64), []
    for name, data, given in (("object", own(), own()), ("class", own, own)):
        run = modkit.fit(make(), data, tmp_path / name, name=name, steps=2, **TINY)
        modkit.evaluate_run(run, model=make, data=given, **MEASURED, device="cpu").save(run.path)
        runs.append(run)
    models, data = dict.fromkeys(runs, make), {runs[0]: own(), runs[1]: own}
    assert modkit.compare(runs, tmp_path / "page.html", models=models, data=data).entries == ("object", "class")
    modkit.resume(runs[1], ["train.steps=3"], model=make, data=own)
    with pytest.raises(SpecError, match="data.num: got 32 in a run that has trained with 64"):
        modkit.resume(runs[1], model=make, data=partial(Own, num=32, num_test=64))
