"""Sweeps over functions that compose models, in forks of the process that has their classes."""

import json
from functools import partial

import torch

import modkit
from modkit import SpecError
from modkit.data import Ring
from modkit.models import Diffusion
from modkit.runs.run import Run
from modkit.sweeps.factory import freeze_factory
from modkit.sweeps.sweep import sweep
from tests.refusals import check_refusal, refusals

DATA = partial(Ring, num=64, num_test=64)
TRAIN = {"steps": 2, "batch_size": 8, "device": "cpu", "samples": {"num": 4}}
MEASURED = {"metrics": ["fd"], "features": "pixels", "num": 32}


def make_maker(fault=None):
    """Makes a function that composes models of a class that only this process has."""

    class Linear(torch.nn.Module):
        def __init__(self, x, out, cond, *, bias: bool = True) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(x.numel, out.numel, bias=bias)

        def forward(self, x, cond):
            if x.device.type != "meta" and bias_of(self) is fault:
                raise ArithmeticError(f"no bias {fault}")
            return self.layer(x)

    def make(bias):
        return Diffusion(Ring().x, network=partial(Linear, bias=bias), sampler="ddim")

    return make


def bias_of(network):
    return network.layer.bias is not None


def test_two_by_two_runs_are_those_of_fit_and_end_in_their_comparison(tmp_path):
    make, choices = make_maker(), {"bias": [True, False], "seed": [0, 1]}
    done = sweep(make, choices, tmp_path / "sweep", data=DATA, train=TRAIN, **MEASURED, jobs=2)
    assert done.failures == () and len(done.trials) == 4
    for trial in done.trials:
        run, settings = Run.open(done.path / "runs" / trial.run), dict(one.split("=") for one in trial.label.split(","))
        with modkit.seeded(int(settings["seed"])):
            model = make(settings["bias"] == "True")
        own = modkit.fit(model, DATA, tmp_path / trial.run, name="make", **{**TRAIN, "seed": int(settings["seed"])})
        found, wanted = (one.load_weights(one.find_checkpoint_name()) for one in (run, own))
        assert all(torch.equal(found[key], value) for key, value in wanted.items())
        assert run.spec_text == trial.spec
    assert [one["run"] for one in json.loads(done.page.with_suffix(".json").read_text())["entries"]] == [
        str(done.path / "runs" / trial.run) for trial in done.trials
    ]


def test_what_fails_is_reported_and_the_others_go_on_and_it_continues(tmp_path):
    points = torch.linspace(-1, 1, 128).view(64, 2)
    choices, data = {"bias": [True, False]}, {"train": points, "test": points + 1}
    done = sweep(make_maker(fault=False), choices, tmp_path, data=data, train=TRAIN, **MEASURED)
    (failure,) = done.failures
    assert failure.run == "bias=False" and failure.status == 1 and failure.trial is None
    assert failure.stderr.rstrip().endswith("ArithmeticError: no bias False") and "of bias=False" in failure.command
    trained = (tmp_path / "runs" / "bias=True" / "status.json").stat().st_mtime_ns
    again = sweep(make_maker(), choices, tmp_path, data=data, train=TRAIN, **MEASURED)
    assert again.failures == () and (tmp_path / "runs" / "bias=False" / "status.json").exists()
    assert (tmp_path / "runs" / "bias=True" / "status.json").stat().st_mtime_ns == trained


def test_all_that_is_wrong_is_refused_before_anything_is_written(tmp_path):
    given = {"data": DATA, "train": TRAIN}
    out, make = tmp_path / "sweep", make_maker()
    check_refusal(
        r"train.sed: got an unknown key 'sed', .*; in bias=True,sed=0",
        sweep,
        make,
        {"bias": [True], "sed": [0]},
        out,
        **given,
        error=SpecError,
    )
    check_refusal("written differently, got bias=True twice", sweep, make, {"bias": [True, "True"]}, out, **given)
    check_refusal("at most 1000 trials, got 1001", sweep, make, {"bias": range(1001)}, out, **given)
    assert not out.exists()


test_a_function_and_a_spec_take_different_arguments = refusals(
    ((make_maker(), ["seed=0"]), {"data": DATA}, "got function, list, some data and steps=None"),
    ((make_maker(), {"bias": [True]}), {}, "got function, dict, no data and steps=None"),
    ((make_maker(), {"bias": [True]}), {"data": DATA, "steps": 2}, "got function, dict, some data and steps=2"),
    (("spec.yaml", {"seed": [0]}), {}, "got str, dict, no data and steps=None"),
    of=lambda given, options: sweep(*given, "nowhere", **options),
)


def test_parts_are_named_in_labels():
    def make(network):
        return Diffusion(Ring().x, network=network)

    choices = {
        "network": [modkit.find("network", "mlp").load(), partial(modkit.find("network", "mlp").load(), width=8)]
    }
    labels = [trial.label for trial in freeze_factory(make, choices, DATA, TRAIN)]
    assert labels == ["network=MLPNetwork", "network=MLPNetwork(width=8)"]
