"""The weights of pieces of other runs in slots that only sampling uses."""

import shutil
from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

import modkit
from modkit import CondType, Spec, SpecError, TensorType, use
from modkit.building.builder import Site
from modkit.building.plan import plan
from modkit.building.session import load_run
from modkit.data import Ring
from modkit.kinds import Slot
from modkit.models import Autoencoder, Diffusion, Latent
from modkit.models.autoguidance import AutoGuidance
from modkit.models.model import Model
from modkit.samplers import DDIM
from modkit.specs.overrides import expand
from tests.play import spec

X = TensorType((2,), std=1.0)
RING = use("ring", modes=3, num=64, num_test=8)


@pytest.mark.wide
def test_a_run_keeps_its_guide_where_it_is_loaded_by_the_spec_that_it_was_trained_with(tmp_path):
    """The fault: a piece that the spec does not write out was taken for another, and read from its run's folder.

    A guide that had been trained anew came into the model so, at the evaluation after training too.
    """
    parts = {"network": use("mlp", width=8, depth=1), "sampler": use("ddim", steps=3)}
    modkit.train(spec(use("diffusion", **parts), RING, steps=1), tmp_path / "guide")
    guide = use("run", path=str(tmp_path / "guide"))
    written = spec(use("diffusion", **parts, guidance=use("autoguidance", guide=guide)), RING, steps=1)
    run, planned = modkit.train(written, tmp_path / "run"), plan(written)
    weights = {key: value for key, value in run.load_weights().items() if key.startswith("guidance.guide.")}
    composed = modkit.build(written)
    modkit.train(spec(use("diffusion", **parts), RING, steps=1, seed=1), tmp_path / "guide", overwrite=True)
    anew = modkit.load(tmp_path / "guide").state_dict()
    assert not torch.equal(*(one["network.out.weight"] for one in (anew, composed.guidance.guide.state_dict())))
    loaded = (
        modkit.load(run, spec=written),
        load_run(run, site=Site(planned, meta=False)).model,
        composed.with_parts(sampler="heun"),
    )
    shutil.rmtree(tmp_path / "guide")
    for model in (*loaded, modkit.load(run, spec=written)):
        assert weights and all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())


@pytest.mark.wide
def test_a_guide_that_has_a_guide_needs_no_run_but_its_own(tmp_path):
    parts = {"network": use("mlp", width=8, depth=1), "sampler": use("ddim", steps=3)}

    def train(name, guide=None, **options):
        guidance = {"guidance": use("autoguidance", guide=use("run", path=str(tmp_path / guide)))} if guide else {}
        return modkit.train(spec(use("diffusion", **parts, **guidance), RING, steps=1), tmp_path / name, **options)

    train("first"), train("second", "first")
    train("run")
    kept = modkit.load(tmp_path / "second").state_dict()
    shutil.rmtree(tmp_path / "first")
    guidance = f"model.guidance={{use: autoguidance, guide: {{use: run, path: {tmp_path / 'second'}}}}}"
    run = modkit.resume(tmp_path / "run", [guidance])
    guide = modkit.load(run).guidance.guide.state_dict()
    assert guide.keys() == kept.keys() and all(torch.equal(guide[name], value) for name, value in kept.items())


class Line(nn.Module):
    """A denoiser of one's own."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(3, 2)

    def forward(self, x, cond):
        return self.line(torch.cat([x, cond.time[:, None]], 1))


def test_parts_that_sampling_uses_are_swapped_beside_built_ones():
    """The fault: a built part was asked for its slots, which it does not declare."""
    model = Diffusion(X, network=Line(), schedule="cosine", sampler="heun")
    named = model.with_parts(sampler=partial(DDIM, steps=3))
    built = model.with_parts(sampler=DDIM(model.schedule, X, steps=3))
    assert named.network is built.network is model.network
    assert torch.equal(named.sample(2, seed=0), built.sample(2, seed=0))
    assert torch.equal(built.with_parts(sampler="heun").sample(2, seed=0), model.sample(2, seed=0))


@pytest.mark.wide
def test_a_copy_of_a_model_is_composed_of_the_copies_that_it_holds(tmp_path):
    """The fault: parts were swapped, and a run measured, with the original's modules, which got the copy's weights."""
    coder = Autoencoder(X, encoder=use("mlp", width=4, depth=1), decoder=use("mlp", width=4, depth=1))
    prior = partial(Diffusion, network=use("mlp", width=4, depth=1), sampler=use("ddim", steps=2))
    models = [
        (Diffusion(X, network=Line(), sampler="heun"), "network"),
        (Latent(X, autoencoder=coder, prior=prior), "autoencoder"),
    ]
    for index, (model, given) in enumerate(models):
        before = deepcopy(dict(model.named_parameters()))
        copied = deepcopy(model)
        with torch.no_grad():
            for parameter in copied.parameters():
                parameter.fill_(7)
        swapped = copied.with_parts(sampler=partial(DDIM, steps=2))
        assert getattr(swapped, given) is getattr(copied, given) is not getattr(model, given)
        assert all((parameter == 7).all() for parameter in swapped.parameters())
        settings = {"steps": 1, "batch_size": 8, "device": "cpu", "evaluate": {"metrics": ["fd"], "num": 8}}
        modkit.fit(copied, Ring(modes=3, num=64, num_test=8), tmp_path / str(index), **settings)
        assert all(torch.equal(value, before[key]) for key, value in model.named_parameters())


class Pair(Model):
    """Two models, the first of which samples."""

    def __init__(self, x: TensorType, cond: CondType, *, first: Slot[Model], second: Slot[Model]) -> None:
        super().__init__()
        self.event = x
        self.first, self.second = first(x=x, cond=cond, fields={}), second(x=x, cond=cond, fields={})

    def players(self):
        return (modkit.Player("both", ("first", "second")),)

    def losses(self, player, batch, step):
        return {}

    def draw(self, num, fields, cond, rng):
        return self.first.draw(num, fields, cond, rng)


def test_a_slot_inside_a_model_that_was_composed_before_is_swapped():
    """The fault: the composed model was used as it was, with the sampler that it had, and nothing said so."""
    net = Line()
    coder = Autoencoder(X, encoder=use("mlp", width=4, depth=1), decoder=use("mlp", width=4, depth=1))
    latent = replace(coder.latents["continuous"], std=1.0)
    prior = partial(Diffusion, network=use("mlp", width=4, depth=1))
    former, latter = (use("ddim", steps=2), use("heun", steps=3))
    composed, written = prior(latent, sampler=former), partial(prior, sampler=former)
    inner = Latent(X, autoencoder=coder, prior=composed)
    outer = Latent(X, autoencoder=coder, prior=written)
    for latent in (inner, outer):
        latent.mean_0.fill_(0)
        latent.std_0.fill_(1)
    for model in (inner, outer, Pair(X, first=inner, second=inner)):
        before = model.sample(2, seed=0)
        swap = {"model.first.prior.sampler" if isinstance(model, Pair) else "sampler": latter}
        made = model.with_parts(**swap)
        whole = made.first if isinstance(made, Pair) else made
        assert type(whole.prior.sampler).__name__ == "Heun" and whole.autoencoder is coder
        assert all(one is two for one, two in zip(made.parameters(), model.parameters(), strict=True))
        assert torch.equal(made.with_parts(**dict.fromkeys(swap, former)).sample(2, seed=0), before)
        assert torch.equal(model.sample(2, seed=0), before) and not torch.equal(made.sample(2, seed=0), before)
    assert made.second is made.first is not inner
    guide = Diffusion(X, network=net, sampler=former)
    guided = Diffusion(X, network=net, guidance=partial(AutoGuidance, guide=guide), sampler=former)
    made = guided.with_parts(**{"model.guidance.guide.sampler": latter})
    assert type(made.guidance.guide.sampler).__name__ == "Heun" and type(made.sampler).__name__ == "DDIM"
    assert made.guidance.guide.network is made.network is net


@pytest.mark.wide
def test_what_only_sampling_uses_is_swapped_inside_a_piece_of_another_run(tmp_path):
    """The fault: the slots of a run whose model is a piece of another one were not found."""
    parts = {"network": use("mlp", width=8, depth=1), "sampler": use("ddim", steps=3)}
    modkit.train(spec(use("diffusion", **parts), RING, steps=1), tmp_path / "guide")
    guided = use("diffusion", **parts, guidance=use("autoguidance", guide=use("run", path=str(tmp_path / "guide"))))
    modkit.train(spec(guided, RING, steps=1), tmp_path / "former")
    piece = spec(use("run", path=str(tmp_path / "former"), train=True), RING, steps=1)
    run = modkit.train(piece, tmp_path / "run")
    for name in ("guide", "former"):
        (tmp_path / name).rename(tmp_path / f"{name} elsewhere")
    model, before = modkit.load(run), modkit.load(run).sample(2, seed=0)
    override = expand(load_run(run).plan.resolved, ["sampler"], "sampler={use: heun, steps: 3}")
    loaded = load_run(run, [override])
    x, sampler = loaded.model.eval().sample(2, seed=0), loaded.plan.resolved.at("model.sampler")
    assert sampler["use"] == "heun" and not torch.equal(x, before)
    assert torch.equal(model.with_parts(sampler=sampler).sample(2, seed=0), x)
    assert torch.equal(modkit.load(run, ["model.guidance.guide.sampler=heun"]).sample(2, seed=0), before)
    with pytest.raises(SpecError, match=r"model\.network\.width: got 4 in a run that has trained with 8"):
        modkit.load(run, ["model.network.width=4"])
    with pytest.raises(SpecError, match=r"model\.samplre: got an unknown key 'samplre'.*did you mean 'sampler'"):
        modkit.load(run, ["model.samplre=heun"])


@pytest.mark.wide
def test_a_run_of_a_piece_goes_on_with_another_sampler(tmp_path):
    parts = {"network": use("mlp", width=8, depth=1), "sampler": use("ddim", steps=3)}
    modkit.train(spec(use("diffusion", **parts), RING, steps=1), tmp_path / "former")
    piece = spec(use("run", path=str(tmp_path / "former"), train=True), RING, steps=2)
    modkit.train(piece, tmp_path / "run", steps=1)
    run = modkit.resume(tmp_path / "run", ["model.sampler=heun"])
    assert [change["path"] for change in run.revisions[0]["changes"]] == ["model.sampler"]
    assert Spec.from_yaml(run.spec_text).at("model.sampler.use") == "heun"
    with pytest.raises(SpecError, match=r"model\.network\.width: got 4 in a run that has trained with 8"):
        modkit.resume(tmp_path / "run", ["model.network.width=4"])


def test_other_parts_are_reviewed_as_on_load(caplog):
    model = Diffusion(X, network="mlp")
    model.with_parts(sampler="heun")
    assert not caplog.messages
    model.with_parts(guidance=use("cfg", scale=2.0))
    (message,) = caplog.messages
    assert message.startswith("model.guidance: ")


def test_buffers_that_no_state_dict_has_keep_their_dtype_and_modules_their_mode():
    model = Diffusion(TensorType((1, 4, 4)), network=use("dit", width=8, depth=1, heads=2)).bfloat16()
    model.network.eval()
    made = model.with_parts(sampler=use("ddim", steps=2))
    assert {name: one.dtype for name, one in made.network.named_buffers()} == {
        name: one.dtype for name, one in model.network.named_buffers()
    }
    assert made.sample(1, seed=0).dtype == torch.bfloat16
    assert made.training and not made.network.training
