"""Autoguidance: its formula, what guides it accepts, and guides that come from runs."""

import copy
import re
import shutil
from functools import partial

import pytest
import torch

import modkit
from modkit import TensorType, use
from modkit.features.classifier import DIGITS
from modkit.kinds import Finding
from modkit.models import Diffusion
from modkit.models.autoguidance import AutoGuidance
from modkit.training.ownership import collect_modules, find_untrained
from tests.play import shake, spec, turn
from tests.refusals import refusals

X, FIELDS = TensorType((2,), std=1.0), {"labels": TensorType((), classes=3)}
MLP = use("mlp", width=8, depth=1)
LABEL = use("label", width=4)
RING = use("ring", modes=3, num=64, num_test=8)


def made(**parts):
    own = {"network": MLP, "conditioner": LABEL, "sampler": use("ddim", steps=3)}
    return Diffusion(X, fields=FIELDS, **{**own, **parts})


def guided(guide, scale=2.5):
    return partial(AutoGuidance, guide=guide, scale=scale)


def test_it_goes_away_from_the_guide_s_prediction_under_the_same_conditions():
    guide = made(network=use("mlp", width=4, depth=1), parametrization="eps")
    model, labels, steps = made(guidance=guided(guide)).double(), torch.tensor([2, 0, 1]), []
    model.sample(3, seed=0, labels=labels, callback=steps.append)
    for step, t in zip(steps, model.sampler.times()):
        good, bad = (one.denoiser({"labels": labels})(step.x_t, t).x_0 for one in (model, model.guidance.guide))
        assert not torch.allclose(good, bad)
        assert torch.equal(step.x_0, bad + 2.5 * (good - bad))  # of one schedule, x_t and t are those of the model
    assert len(steps) == 3


def learned(shift=0.0, **parts):
    """A model whose noise levels are learned, after they have moved."""
    model = made(schedule="learned", sampler=use("euler", steps=4), parametrization="edm", **parts).double()
    with torch.no_grad():
        model.schedule.ends.sub_(shift)
        model.schedule.shares.copy_(torch.linspace(-shift, shift, len(model.schedule.shares)))
    return model


@pytest.mark.wide(1)
@pytest.mark.parametrize("schedule", ["learned", "log-linear", "linear", "cosine", "edm", "flow", "vp"])
def test_a_guide_of_another_schedule_is_asked_at_the_noise_level_that_x_t_has(schedule):
    """The fault: it was asked at the model's t, which stands for another level where a schedule has learned.

    EDM's prediction depends on x_t / alpha_t and the level alone, so a network predicts the same under any schedule.
    """
    twin = learned(1.5)
    shake(twin.network, 0.5)
    guide = made(schedule=schedule, parametrization="edm", times="uniform", loss_weight="likelihood").double()
    guide.network.load_state_dict(twin.network.state_dict())
    guide.conditioner.load_state_dict(twin.conditioner.state_dict())
    composed, labels = learned(guidance=guided(guide)), torch.tensor([2, 0, 1])
    composed.schedule.load_state_dict(twin.schedule.state_dict())
    for model in (composed, learned(1.5).with_parts(guidance=guided(guide)), copy.deepcopy(composed)):
        steps = []
        model.sample(3, seed=0, labels=labels, callback=steps.append)
        for step, t in zip(steps, model.sampler.times()[:-1], strict=True):
            good, bad = (one.denoiser({"labels": labels})(step.x_t, t).x_0 for one in (model, twin))
            torch.testing.assert_close(step.x_0, bad + 2.5 * (good - bad), rtol=1e-9, atol=1e-9)
            assert not torch.allclose(step.x_0, good)


def test_levels_are_those_of_the_draw_and_known_before_its_first_step():
    model = learned(guidance=guided(learned()))
    guide, counts, asked = model.guidance.guide, [], []
    compute = guide.schedule.scales
    guide.schedule.scales = lambda t: asked.append(t) or compute(t)
    for _ in range(2):
        model.sample(2, seed=0, callback=lambda step: counts.append(len(asked)))
        with torch.no_grad():
            model.schedule.ends.sub_(1.5)  # as training does
    assert len(set(counts[:4])) == len(set(counts[4:])) == 1 and counts[0] > 0
    assert model.guidance.explain_refusal(model.sampler.times()[:-1]) is None


def test_a_guide_s_table_must_reach_the_levels_that_are_sampled():
    model = made(guidance=guided(made(schedule="linear")))
    message = (
        "AutoGuidance expects a guide with the noise level 20291.2, which is sampled, "
        "got Linear of 1000 steps, whose levels are 0.0100005 to 157.407"
    )
    (found,) = [note for note in model.review() if isinstance(note, Finding)]
    assert (found.path, found.message, found.refused) == ("guidance", message, True)
    with pytest.raises(ValueError, match=re.escape(message)):
        model.sample(2, seed=0)
    grid = use("karras", sigma_min=0.02, sigma_max=100.0)
    within = model.with_parts(sampler=use("ddim", steps=3, grid=grid))
    assert within.sample(2, seed=0).shape == (2, 2) and not [one for one in within.review() if isinstance(one, Finding)]
    assert made(guidance=guided(made(schedule="linear"), scale=1.0)).sample(2, seed=0).shape == (2, 2)


@pytest.mark.parametrize("around", [lambda one: one, lambda one: use("restart", sampler=one)], ids=["alone", "restart"])
def test_the_levels_to_which_churn_raises_x_t_count_too(around):
    """The fault: the model passed its review, and its samples were refused in their first step."""
    heun = use("heun", steps=9, churn=5.0, grid=use("karras", sigma_min=0.02, sigma_max=157.0))
    model = made(schedule="edm", times="log-normal", guidance=guided(made(schedule="linear")), sampler=around(heun))
    message = "AutoGuidance expects a guide with the noise level 222.0"
    (found,) = [note for note in model.review() if isinstance(note, Finding) and note.path == "guidance"]
    assert found.message.startswith(message) and found.refused
    with pytest.raises(ValueError, match=message):
        model.sample(2, seed=0)
    plain = use("heun", steps=9, churn=5.0, churn_max=100.0, grid=use("karras", sigma_min=0.02, sigma_max=157.0))
    within = model.with_parts(sampler=around(plain))
    assert not [note for note in within.review() if isinstance(note, Finding)]
    assert within.sample(2, seed=0).shape == (2, 2)


def test_at_scale_1_the_guide_is_not_called():
    model = made(guidance=guided(made(), scale=1.0))
    model.guidance.guide.network.forward = None
    assert torch.equal(model.sample(2, seed=0), model.with_parts(guidance="none").sample(2, seed=0))


def test_the_guide_is_frozen_and_belongs_to_no_player():
    model = made(guidance=guided(made()))
    names = {name for name, _ in model.named_parameters() if name.startswith("guidance.")}
    assert names and names <= find_untrained(model, model.players())
    assert set(model.guidance.modules()).isdisjoint(collect_modules(model, *model.players()))
    batch = modkit.Batch(torch.zeros(2, 2), {"labels": torch.tensor([0, 1])})
    sum(model.losses("denoiser", batch, turn("a")).values()).backward()
    assert all(one.grad is None for one in model.guidance.parameters())


test_guides_that_do_not_fit_are_refused = refusals(
    (use("gan", generator=MLP, discriminator=MLP), "guide: AutoGuidance expects a Model that denoises, got GAN"),
    (
        use("diffusion", network=MLP),
        r"expects a guide under the model's conditions, got \['labels'\] and a guide that reads \[\]",
    ),
    of=lambda guide: made(guidance=guided(guide)),
)


def test_codes_have_no_schedule_for_it():
    codes = TensorType((2, 2), classes=4)
    with pytest.raises(modkit.SpecError, match="it expects a slot that provides `schedule`, got one that does not"):
        modkit.models.Masked(codes, guidance=use("autoguidance", guide="diffusion"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of a model, of two guides, and of a model that is trained with the first guide."""
    folder = tmp_path_factory.mktemp("runs")
    parts = {"network": MLP, "conditioner": LABEL, "sampler": use("ddim", steps=3)}
    for seed, name in enumerate(("model", "guide", "other")):
        modkit.train(spec(use("diffusion", **parts), RING, seed=seed), folder / name)
    piece = {"use": "run", "path": str(folder / "guide")}
    trained = use("diffusion", **parts, guidance=use("autoguidance", guide=piece, scale=2.5))
    modkit.train(spec(trained, RING), folder / "guided")
    return folder


def draw(model, **parts):
    return (model.with_parts(**parts) if parts else model).sample(4, seed=1, labels=[0, 1, 2, 0])


@pytest.mark.wide
def test_a_run_is_guided_by_another(runs):
    override = f"model.guidance={{use: autoguidance, scale: 2.5, guide: {{use: run, path: {runs}/other}}}}"
    got = draw(modkit.load(runs / "model", [override]))
    want = draw(modkit.load(runs / "model"), guidance=guided(modkit.load(runs / "other")))
    assert torch.equal(got, want) and not torch.equal(got, draw(modkit.load(runs / "model")))
    assert torch.equal(draw(modkit.load(runs / "guided", [override])), want)  # trained by the same seed
    assert torch.equal(draw(modkit.load(runs / "guided", ["model.guidance=none"])), draw(modkit.load(runs / "model")))


@pytest.mark.wide
def test_a_run_that_has_a_guide_loads_without_the_guide_s(runs, tmp_path):
    want = draw(modkit.load(runs / "model"), guidance=guided(modkit.load(runs / "guide")))
    shutil.copytree(runs / "guided", tmp_path / "guided")
    shutil.move(runs / "guide", tmp_path / "elsewhere")
    assert torch.equal(draw(modkit.load(tmp_path / "guided")), want)
    assert not torch.equal(draw(modkit.load(tmp_path / "guided", ["model.guidance.scale=3"])), want)


def set_guide(folder, name):
    return f"model.guidance={{use: autoguidance, scale: 2.5, guide: {{use: run, path: {folder / name}}}}}"


def go_on(run, *overrides):
    return modkit.resume(run, overrides)


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", ["model", "guided"])
@pytest.mark.parametrize("steps", [8, 4])
def test_a_run_goes_on_with_another_guide(runs, tmp_path, name, steps):
    """The fault: a guide that was new was refused, and one in the place of another had the weights of the former."""
    shutil.copytree(runs / name, tmp_path / "run")
    keep = "train.checkpoints.keep=9"
    run = go_on(tmp_path / "run", set_guide(runs, "other"), f"train.steps={steps}", keep)
    guide = guided(modkit.load(runs / "other"))
    assert torch.equal(draw(modkit.load(run)), draw(modkit.load(run), guidance=guide))
    before = modkit.load(run, checkpoint="step-00000004")  # written when the guide was another
    assert torch.equal(draw(before), draw(modkit.load(runs / "model"), guidance=guide))
    again = modkit.load(go_on(run.path, "train.steps=12"))
    assert torch.equal(draw(again), draw(again, guidance=guide))


@pytest.mark.wide
def test_a_run_goes_on_without_its_guide(runs, tmp_path):
    shutil.copytree(runs / "guided", tmp_path / "run")
    model = modkit.load(go_on(tmp_path / "run", "model.guidance=none", "train.steps=8"))
    assert not [key for key in model.state_dict() if key.startswith("guidance.")]


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", ["model", "guided"])
def test_a_branch_may_have_another_guide(runs, tmp_path, name):
    model = modkit.load(modkit.branch(runs / name, tmp_path / "branch", [set_guide(runs, "other"), "train.steps=8"]))
    assert torch.equal(draw(model), draw(model, guidance=guided(modkit.load(runs / "other"))))


@pytest.mark.wide
def test_a_guide_needs_nothing_of_its_alignment(tmp_path):
    """The fault: a guide was loaded with the extractor that had aligned it, whose file had to be there."""
    shutil.copy(DIGITS, tmp_path / "digits.safetensors")
    features = use("classifier", weights=str(tmp_path / "digits.safetensors"))
    parts = {"network": use("unet", channels=[4], blocks=1), "sampler": use("ddim", steps=2)}
    aligned = use("diffusion", **parts, alignment=use("features", features=features, width=4))
    guide = modkit.train(spec(aligned, steps=1), tmp_path / "guide")
    (tmp_path / "digits.safetensors").unlink()
    guidance = use("autoguidance", guide=use("run", path=str(guide.path)))
    run = modkit.train(spec(use("diffusion", **parts, guidance=guidance), steps=1), tmp_path / "run")
    model = modkit.load(run)
    assert model.guidance.guide.alignment is None
    weights = guide.load_weights()
    assert all(torch.equal(one, weights[key]) for key, one in model.guidance.guide.state_dict().items())
    put = modkit.load(run, [set_guide(tmp_path, "guide")])
    assert put.guidance.guide.alignment is None and put.guidance.scale == 2.5
