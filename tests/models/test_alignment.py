"""Diffusion with an inner map that is aligned with features of the clean sample."""

import shutil

import numpy as np
import pytest
import torch

import modkit
from modkit import SpecError, build, use
from modkit.diffusion.gaussian import add_noise
from modkit.models.compiling import compile_networks
from modkit.specs.settings import Compilation, Term
from tests.play import digits, shake, spec, state, trainer, turn
from tests.refusals import refusals

UNET = use("unet", channels=[4, 8], blocks=1, attention=[])
DIT = use("dit", width=8, depth=3, heads=2)
CODER = use("autoencoder", encoder=use("conv", channels=[4, 4]), decoder=use("conv", channels=[4, 4]))
RANDOM = use("features", features=use("random-conv", dim=8), width=8)


def diffusion(network=UNET, **slots):
    return use("diffusion", **{"network": network, "sampler": use("ddim", steps=3), **slots})


@pytest.fixture
def computed(tmp_path):
    """Data with features that were computed beforehand."""
    drawn = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", drawn.integers(0, 256, (40, 8, 8), dtype=np.uint8))
    np.save(tmp_path / "features.npy", drawn.normal(size=(40, 5, 2, 2)).astype(np.float32))
    return use("array", path=str(tmp_path / "x.npy"), fields={"features": str(tmp_path / "features.npy")})


def made(**slots):
    return shake(build(spec(diffusion(**slots))), 0.1).double()


@pytest.mark.parametrize(("network", "tap"), [(UNET, "up.0"), (DIT, "blocks.1")], ids=["unet", "dit"])
def test_the_loss_is_that_of_the_map_which_the_network_makes_of_x_t(network, tap):
    aligned = use("features", features=use("random-conv", dim=8), width=8, tap=tap)
    model, batch = made(network=network, alignment=aligned, conditioner="label"), digits(5, torch.float64)
    losses = model.losses("denoiser", batch, turn("a"))
    rng, x_0 = turn("a").rng, batch.tensor
    t = model.times(5, rng.at("times"))
    scales = model.schedule.scales(t)
    x_t = add_noise(x_0, rng.normal("eps", x_0), scales)
    cond = model.conditioner(batch.fields, rng.at("conditioner"))
    x_in, time = model.parametrization.inputs(x_t, model.parametrization.coefficients(t, scales))
    made_there = []
    model.network.get_submodule(tap).register_forward_hook(lambda _, __, out: made_there.append(out))
    model.network(x_in, cond.at(time))
    (h,) = made_there
    places = h.flatten(2).mT if network is UNET else h  # a row for each position
    f = model.alignment.projector.layers(places)
    y = torch.nn.functional.avg_pool2d(model.alignment.extractor.held(x_0).maps[-1], 1).flatten(2).mT
    assert y.shape[1] == 4 and places.shape[1] == 16  # the features are 2×2, the tap 4×4
    y = y.view(5, 2, 1, 2, 1, 8).expand(5, 2, 2, 2, 2, 8).reshape(5, 16, 8)
    want = -((f * y).sum(2) / f.norm(dim=2) / y.norm(dim=2)).mean()
    torch.testing.assert_close(losses["alignment"], want, rtol=1e-8, atol=1e-9)


@pytest.mark.wide(1)
@pytest.mark.parametrize("network", [UNET, DIT], ids=["unet", "dit"])
@pytest.mark.parametrize("more", [{}, {"loss_weight": "uncertainty"}, {"parametrization": "eps-learned"}], ids=str)
def test_all_other_losses_and_the_samples_are_those_without(network, more):
    schedule = {"schedule": use("linear", num=20)}
    bare, model = (build(spec(diffusion(network, alignment=one, **more, **schedule))) for one in (None, RANDOM))
    assert set(model.state_dict()) - set(bare.state_dict()) == {
        f"alignment.projector.layers.{index}.{name}" for index in (0, 2, 4) for name in ("weight", "bias")
    }
    without, losses = (one.losses("denoiser", digits(4), turn()) for one in (bare, model))
    assert losses.keys() - without.keys() == {"alignment"} and "alignment" not in without
    assert all(torch.equal(losses[name], value) for name, value in without.items())
    assert torch.equal(bare.sample(2, seed=0), model.sample(2, seed=0))


def test_a_step_at_which_the_loss_is_not_due_taps_nothing():
    model, batch, terms = made(alignment=RANDOM), digits(4, torch.float64), {"alignment": Term(every=2)}
    tapped = model.network.tap
    model.network.tap = lambda *given: seen.append(1) or tapped(*given)
    for index, due in ((0, True), (1, False)):
        seen = []
        losses = model.losses("denoiser", batch, turn(index=index, terms=terms))
        assert ("alignment" in losses, bool(seen)) == (due, due)


def test_the_gradient_reaches_the_network_up_to_the_tap_and_the_projector():
    model = made(network=DIT, alignment=use("features", **RANDOM.params, tap="blocks.1"))
    loss = model.losses("denoiser", digits(5, torch.float64), turn())["alignment"]
    names = [name for name, one in model.named_parameters() if one.requires_grad]
    gradients = torch.autograd.grad(loss, [model.get_parameter(name) for name in names], allow_unused=True)
    reached = {name for name, gradient in zip(names, gradients) if gradient is not None and gradient.any()}
    later = ("network.blocks.2", "network.norm", "network.modulation", "network.out")
    assert reached == {name for name in names if not name.startswith(later)}
    assert any(name.startswith(later) for name in names)
    assert {name.split(".")[0] for name in reached} == {"network", "alignment"}


@pytest.mark.wide
def test_training_raises_the_similarity_and_moves_no_extractor(tmp_path):
    model = diffusion(alignment=RANDOM, weights={"alignment": 0.5})
    game = trainer(spec(model, steps=60, batch_size=32, optimizer=use("adamw", lr=1e-2)), tmp_path / "run")
    extractor = game.model.alignment.extractor.held
    before = state(extractor)
    game.fit()
    rows = [row["losses"]["denoiser/alignment"] for row in game.run.read_metrics()]
    assert rows[0] > -0.1 and sum(rows[-10:]) / 10 < -0.45
    assert all(torch.equal(value, before[name]) for name, value in extractor.state_dict().items())


@pytest.mark.wide(1)
@pytest.mark.parametrize("alignment", [RANDOM, use("field", width=8)], ids=["features", "field"])
def test_a_run_reloads_and_resumes(alignment, computed, tmp_path):
    small = spec(diffusion(alignment=alignment), computed, ema=0.5, checkpoints={"every": 2, "keep": 9})
    weights = modkit.train(small, tmp_path / "run").load_weights()
    assert not [name for name in weights if "extractor" in name]
    assert all(torch.equal(value, weights[name]) for name, value in modkit.load(tmp_path / "run").state_dict().items())
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "step-00000004")
    again = modkit.train(small, tmp_path / "run", resume=True).load_weights()
    assert all(torch.equal(value, weights[name]) for name, value in again.items())


@pytest.mark.wide
def test_a_run_is_loaded_without_its_alignment_and_no_other_part_that_is_left_out(tmp_path):
    slots = {"alignment": RANDOM, "weights": {"alignment": 0.5}}
    run = modkit.train(spec(diffusion(**slots), steps=1), tmp_path / "run")
    bare = modkit.load(run, ["model.alignment=null"])
    assert not [name for name in bare.state_dict() if "alignment" in name]
    assert torch.equal(bare.sample(2, seed=0), modkit.load(run).sample(2, seed=0))
    labelled = modkit.train(spec(diffusion(**slots, conditioner="label"), steps=1), tmp_path / "labelled")
    with pytest.raises(ValueError, match="conditioner"):
        modkit.load(labelled, ["model.alignment=null", "model.conditioner=none"])


@pytest.mark.wide
def test_a_latent_is_aligned_with_a_field_of_the_data_from_a_cache_too(computed, tmp_path):
    latent = use("latent", autoencoder=CODER, prior=diffusion(alignment=use("field", width=8)))
    rows = []
    for cache in ({}, {"cache": 1}):
        stages = [{"players": ["autoencoder/*"], "steps": 1}, {"players": ["prior/*"], "steps": 2, **cache}]
        run = modkit.train(spec(latent, computed, stages=stages), tmp_path / f"run {len(cache)}")
        rows.append(list(run.read_metrics())[-1]["losses"]["prior/denoiser/alignment"])
    assert rows[0] == pytest.approx(rows[1], rel=1e-5)


@pytest.mark.wide
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
@pytest.mark.parametrize("network", [UNET, DIT], ids=["unet", "dit"])
def test_units_that_are_compiled_compute_the_same(network):
    model, batch = made(network=network, alignment=RANDOM), digits(4, torch.float64)
    plain = model.losses("denoiser", batch, turn())
    compile_networks(model, Compilation(backend="eager"))
    called = []
    unit = model.network.units[0]
    compiled = unit.forward
    unit.forward = lambda *given: called.append(1) or compiled(*given)
    losses = model.losses("denoiser", batch, turn())
    assert called and all(torch.equal(losses[name], value) for name, value in plain.items())


TAPS = r"taps \(down\.0 4×8×8 unbounded, .*, …, up\.4 4×8×8 unbounded\)"
JOINT = use("latent", autoencoder=CODER, prior=diffusion(alignment=RANDOM), joint=True)
PICTURES = use("features", features=use("classifier", weights="digits"))
NO_PICTURE = r"Classifier expects images .*, got 4×4×4 unbounded; it is fed by the latent 'continuous'"
test_mistakes = refusals(
    (
        diffusion("mlp", alignment=RANDOM),
        r"model\.alignment: expected a network with taps, such as unet or dit, got model\.network",
    ),
    (
        diffusion(alignment=RANDOM, schedule="learned"),
        r"model\.alignment: expected a schedule that does not learn, got Learned, .* that are easiest to align",
    ),
    (
        diffusion(alignment=use("features", tap="down.9")),
        rf"model\.alignment: .*{TAPS}: FeatureAlignment expects tap, one of .*, up\.4; got 'down\.9'",
    ),
    (
        diffusion(alignment="field"),
        r"model\.alignment: .*: FieldAlignment expects the data's field 'features', got fields \['labels'\]",
    ),
    (
        use("latent", autoencoder=CODER, prior=diffusion(alignment=PICTURES)),
        rf"model\.prior\.alignment\.features: .*: {NO_PICTURE}",
    ),
    (JOINT, r"model\.prior: .*Diffusion expects no alignment in joint training, got FeatureAlignment"),
    of=lambda model: build(spec(model)),
    error=SpecError,
)
