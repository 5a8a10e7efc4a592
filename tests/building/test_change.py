"""Overrides of a run: all of what it was trained with are refused, all of what only sampling reads are free."""

from __future__ import annotations

import importlib
from functools import cache, partial

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import modkit
from modkit import Spec, SpecError, TensorType, use
from modkit.building.session import load_run
from modkit.cli.app import app
from modkit.models import Diffusion
from modkit.publishing.export import export
from tests.run_folders import contents

DIGITS, RING = use("digits", size=8), use("ring", num=64, num_test=16)
MLP = use("mlp", width=8, depth=1)
CODER = {"encoder": MLP, "decoder": MLP}
VQ = use("vq", num_codes=4, channels=2, tokens=1)
MAPS = {"encoder": use("conv", channels=[4, 4]), "decoder": use("conv", channels=[4, 4])}
CODES = use("autoencoder", **MAPS, bottleneck=VQ)
TRANSFORMER = use("transformer", width=8, depth=1, heads=2)
DENOISER = use("diffusion", network=MLP, conditioner="label", guidance="cfg")

MODELS = {
    "vae": use("autoencoder", **CODER, bottleneck=use("ladder", channels=2)),
    "vq": CODES,
    "gan": use("gan", generator=use("stylegan2", channels=2, style=4), discriminator=use("dcgan", channels=4), z_dim=2),
    "diffusion": use("diffusion", network=MLP),
    "ldm": use("latent", autoencoder=use("autoencoder", **CODER), prior=DENOISER),
    "flow": use("flow", bijection=use("coupling", network=MLP)),
    "autoregressive": use("latent", autoencoder=CODES, prior=use("autoregressive", network=TRANSFORMER)),
    "masked": use("latent", autoencoder=CODES, prior=use("masked", network=TRANSFORMER)),
    "ddgan": use("denoising-gan", network=MLP, discriminator=MLP, z_dim=2),
}
DATA = {"diffusion": RING, "ddgan": RING, "flow": RING}
USUAL = ("vae", "diffusion", "ldm")
"""The families that are tested without `--full`."""

TRAINED = {
    "vae": (
        *("likelihood=bernoulli", "likelihood=gaussian", "objective=free-bits", "objective=iwae", "weights.kl=4"),
        *(
            "encoder.activation=relu",
            "decoder.activation=relu",
            "bottleneck.groups=[2]",
            "judges={mmd: mmd}",
            "input=x",
        ),
    ),
    "vq": ("bottleneck.commitment=1", "bottleneck.decay=0.9", "encoder.dropout=0.5", "likelihood=l1"),
    "gan": ("generator.mixing=0.1", "adversarial=hinge", "regularizers={r1: {use: r1, gamma: 3}}", "augment=ada"),
    "diffusion": (
        *("parametrization=x0", "schedule=linear", "schedule.num=100", "network.dropout=0.5", "loss_weight=min-snr"),
        *("times=log-normal", "coupling=optimal", "weights.denoising=2"),
    ),
    "ldm": (
        *("prior.parametrization=eps", "prior.network.dropout=0.5", "prior.conditioner.drop=0.5", "scale=3.0"),
        *("autoencoder.likelihood=bernoulli", "by_channel=true", "prior.schedule=vp", "autoencoder.weights.kl=2"),
    ),
    "flow": ("bijection.bound=2.0", "bijection.split=halves", "weights.nll=2"),
    "autoregressive": ("prior.network.dropout=0.5", "prior.window=[2, 2]", "autoencoder.bottleneck.decay=0.9"),
    "masked": ("prior.network.dropout=0.5", "prior.weights.nll=2", "autoencoder.encoder.dropout=0.5"),
    "ddgan": ("schedule=cosine", "steps=2", "adversarial=hinge", "network.dropout=0.5", "weights.adversarial=2"),
}
"""Overrides of what weights were trained with, below `model`."""

FREE = {
    "vae": ("bottleneck.temperature=0.7",),
    "gan": ("generator.truncation=0.5",),
    "diffusion": (
        *("sampler=heun", "sampler=dpm-solver++", "sampler.steps=3", "sampler.eta=0.5", "sampler.clip=true"),
        *("sampler.grid=leading", "guidance=none", "parametrization=v"),
    ),
    "ldm": (
        *("prior.sampler=euler", "prior.sampler={use: heun, steps: 3}", "prior.guidance.scale=3"),
        *("prior.guidance=none", "prior.sampler.grid=karras", "prior.parametrization=v"),
    ),
    "autoregressive": ("prior.sampler.temperature=0.5", "prior.sampler.top_k=2", "prior.guidance=none"),
    "masked": ("prior.sampler.steps=3", "prior.sampler.temperature=1.0"),
    "ddgan": ("sampler.steps=2", "sampler={use: ddim, steps: 2}"),
}
"""Overrides of what only sampling reads, and of what the run has already."""


def pytest_generate_tests(metafunc):
    for name, table in (("refused", TRAINED), ("free", FREE)):
        if name in metafunc.fixturenames:
            marks = {family: () if family in USUAL else pytest.mark.full for family in table}
            metafunc.parametrize(name, [pytest.param(family, marks=marks[family]) for family in table])


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """Makes the run of a family, once, of no steps."""

    @cache
    def make(family):
        settings = {"device": "cpu", "batch_size": 8}
        spec = Spec(model=MODELS[family], data=DATA.get(family, DIGITS), train=settings)
        return modkit.train(spec, tmp_path_factory.mktemp("runs") / family, steps=0)

    return make


def test_the_tables_are_as_long_as_they_say():
    assert TRAINED.keys() == MODELS.keys() and sum(map(len, TRAINED.values())) >= 25
    assert sum(map(len, FREE.values())) >= 15


@pytest.mark.wide(1)
def test_what_was_trained_is_refused(refused, make_run):
    run = make_run(refused)
    for override in TRAINED[refused]:
        path, _, value = f"model.{override}".partition("=")
        with pytest.raises(SpecError, match="in a run that has trained with") as error:
            load_run(run, [f"model.{override}"])
        (problem,) = error.value.problems
        assert path.startswith(problem.path) and problem.message.startswith("got ")
        assert problem.hint.startswith(f"modkit branch {run.path} {problem.path}=") and "--out DIR" in problem.hint
        assert str(problem.position) == f"<override 1>:1:{len(path) + 2}"


@pytest.mark.wide(1)
def test_what_only_sampling_reads_is_free(free, make_run):
    for override in FREE[free]:
        load_run(make_run(free), [f"model.{override}"])


def test_every_command_and_function_refuses_and_writes_nothing(make_run):
    """The fault: `evaluate diffusion model.parametrization=x0` had FD 62 in place of 5.9, without a word."""
    run, override = make_run("ldm"), "model.prior.parametrization=x0"
    before, message = contents(run.path), "model.prior.parametrization: got x0 in a run that has trained with v"
    for command in (("sample",), ("evaluate",), ("latent", "--encode")):
        result = CliRunner().invoke(app, [command[0], str(run.path), override, *command[1:]])
        assert result.exit_code == 2 and message in result.output.replace("\n", " ")
    for call in (modkit.load, partial(modkit.evaluate_run, overrides=[override])):
        with pytest.raises(SpecError, match=message):
            call(run, *([] if isinstance(call, partial) else [[override]]))
    spec = Spec.from_yaml(run.spec_text).with_value("model.prior.parametrization", "x0")
    with pytest.raises(SpecError, match=message):
        modkit.load(run, spec=spec)
    assert contents(run.path) == before


def test_an_exported_run_names_what_may_begin_with_its_weights(make_run, tmp_path):
    exported = export(make_run("diffusion"), tmp_path / "exported")
    with pytest.raises(SpecError, match=r"use: run, path: .*exported, train: true"):
        modkit.load(exported, ["model.schedule=linear"])


X = TensorType((2,))


class Half(nn.Module):
    """A network that halves what the one that was trained computes."""

    def __init__(self, x: TensorType, out: TensorType, cond: modkit.CondType) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x, cond):
        return self.layer(x) / 2


class Whole(Half):
    def forward(self, x, cond):
        return self.layer(x)


OTHERS = {
    "model.schedule": {"schedule": "linear"},
    "model.parametrization": {"parametrization": "eps"},
    "model.network": {"network": Half},
}


@pytest.mark.parametrize("path", OTHERS)
def test_a_model_of_another_composition_is_refused(path, tmp_path):
    """The fault: whatever had weights of these shapes was loaded, and drew other samples."""
    points = torch.zeros(16, 2)
    run = modkit.fit(Diffusion(X, network=Whole), points, tmp_path / "run", steps=0, batch_size=8, device="cpu")
    modkit.load(run, model=Diffusion(X, network=Whole, sampler="heun"))
    with pytest.raises(SpecError, match=rf"{path}: got .* in a run that has trained with"):
        modkit.load(run, model=Diffusion(X, **{"network": Whole, **OTHERS[path]}))
    with pytest.raises(SpecError, match=r"x\.range: got \[-1\.0, 1\.0\]"):
        modkit.load(run, model=Diffusion(TensorType((2,), range=(-1.0, 1.0)), network=Whole))


@pytest.mark.wide
def test_a_local_class_whose_code_has_changed_is_told(tmp_path, monkeypatch, caplog):
    """The fault: `load` and `fit(resume=True)` went on with it in silence."""
    monkeypatch.syspath_prepend(tmp_path)
    text = f"from {__name__} import Whole\n\n\nclass Base(Whole):\n    factor = 1\n\n\nclass Net(Base):\n    pass\n"
    (tmp_path / "my_own_networks.py").write_text(text)
    own = importlib.import_module("my_own_networks")
    points, options = torch.zeros(16, 2), {"batch_size": 8, "device": "cpu"}
    run = modkit.fit(Diffusion(X, network=own.Net), points, tmp_path / "run", steps=1, **options)
    spec = Spec(model=use("diffusion", network=use(own.Net)), x={"shape": [2]})
    modkit.load(run, model=Diffusion(X, network=own.Net))
    modkit.load(run, spec=spec)
    assert caplog.text == ""
    (tmp_path / "my_own_networks.py").write_text(text.replace("factor = 1", "factor = 200"))
    modkit.load(run, model=Diffusion(X, network=own.Net))
    modkit.load(run, spec=spec)
    modkit.fit(Diffusion(X, network=own.Net), points, tmp_path / "run", steps=2, resume=True, **options)
    assert caplog.text.count("model.network: the code of my_own_networks:Net has changed") == 3
    with pytest.raises(ValueError, match="is locked to the parts"):
        modkit.load(run, spec=spec, locked=True)
