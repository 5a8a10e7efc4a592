import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from modkit import build, load, train, use
from modkit.models import Flow
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType
from tests.play import MLP, shake, spec, trainer, turn
from tests.refusals import refusals

NET = use("mlp", width=16, depth=1)
RING = use("ring", num=256, num_test=32)
SPLINE = use("coupling", network=NET, transform="spline", bins=6, bound=3.0)
STEP = use("chain", layers=["actnorm", "linear", SPLINE])
FLOW = use("flow", bijection=STEP)
LABEL = use("label", width=5)


def made(bijection=STEP, data=None, **options):
    return shake(build(spec(use("flow", bijection=bijection, **options), data or RING)).double(), 0.3)


@pytest.mark.parametrize(
    ("bijection", "label", "num"),
    [
        (use("coupling", network=NET), 3, 201),
        (use("autoregressive", width=16), None, 201),
        (SPLINE, None, 401),  # some of whose bins are narrow
        pytest.param(use("chain", layer=STEP, depth=2), 3, 401, marks=pytest.mark.full),
    ],
    ids=["affine", "autoregressive", "spline", "chain"],
)
@torch.no_grad()
def test_its_density_integrates_to_one(bijection, label, num):
    options = {} if label is None else {"conditioner": LABEL}
    model = shake(build(spec(use("flow", bijection=bijection, **options), RING)).double(), 0.1)
    axis = torch.linspace(-8, 8, num, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    fields = {} if label is None else {"labels": torch.full((len(x),), label)}
    mass = model.bound(Batch(x, fields), 1, Rng(0)).exp().sum() * float(axis[1] - axis[0]) ** 2
    assert abs(float(mass) - 1) < 1e-3


def test_of_affine_bijections_bound_and_samples_are_those_of_a_gaussian():
    model = made(use("chain", layers=["actnorm", "linear"]))
    zero = torch.zeros(2, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(lambda v: model.encode(v[None], "base")[0], zero)
    exact = MultivariateNormal(model.decode(zero[None], "base")[0], precision_matrix=matrix.T @ matrix)
    x = 2 * torch.randn(6, 2, dtype=torch.float64)
    torch.testing.assert_close(model.bound(Batch(x, {}), 3, Rng(0)), exact.log_prob(x), rtol=1e-9, atol=1e-9)
    losses = model.losses("flow", Batch(x, {}), turn())
    torch.testing.assert_close(losses, {"nll": -exact.log_prob(x).mean() / 2})
    drawn = model.sample(4000, seed=0)
    white = (drawn - exact.mean) @ torch.linalg.cholesky(exact.precision_matrix)
    torch.testing.assert_close(white.mean(0), zero, rtol=0, atol=4 / math.sqrt(4000))
    torch.testing.assert_close(white.T.cov(), torch.eye(2).double(), rtol=0, atol=4 * math.sqrt(2 / 4000))


def test_it_encodes_its_samples_to_the_noise_that_they_start_from():
    model, noise = made(), torch.randn(5, 2, dtype=torch.float64)
    x = model.sample(5, start_noise=noise)
    torch.testing.assert_close(model.encode(x, "base"), noise, rtol=0, atol=1e-8)
    torch.testing.assert_close(model.reconstruct(x), x, rtol=0, atol=1e-8)
    assert torch.equal(model.encode(model.condense(x), "base"), model.encode(x, "base"))
    y, log_weight = model.weigh(x, "base", Rng(0))
    log_p = -0.5 * (y.square() + math.log(2 * math.pi)).sum(1) + log_weight
    torch.testing.assert_close(model.bound(Batch(x, {}), 1, Rng(0)), log_p)


def test_given_labels_and_conditions_it_is_another_density():
    model, x = made(conditioner=LABEL), torch.randn(4, 2, dtype=torch.float64)
    zero, five = ({"labels": torch.full((4,), label)} for label in (0, 5))
    by_label = [model.bound(Batch(x, fields), 1, Rng(0)) for fields in (zero, five)]
    assert (by_label[0] != by_label[1]).all()
    assert not torch.allclose(model.sample(4, seed=0, labels=0), model.sample(4, seed=0, labels=5))
    y, log_det = model.weigh(x, "base", Rng(0), fields=five)
    torch.testing.assert_close(model.encode(x, "base", fields=five), y)
    torch.testing.assert_close(model.decode(y, "base", fields=five), x, rtol=0, atol=1e-8)
    torch.testing.assert_close(-0.5 * (y.square() + math.log(2 * math.pi)).sum(1) + log_det, by_label[1])
    assert not torch.isclose(y, model.encode(x, "base", fields=zero)).any()
    inner = shake(Flow(TensorType((2,)), CondType(vector=3), bijection=SPLINE), 0.3)
    assert inner.latents == {}  # what encodes is given no conditions from outside
    batches = [Batch(x.float(), {}, Cond(vector=torch.full((4, 3), one))) for one in (0.0, 1.0)]
    assert (inner.bound(batches[0], 1, Rng(0)) != inner.bound(batches[1], 1, Rng(0))).all()


def test_levels_are_dequantized_in_training_and_in_prepare_by_noise_as_wide_as_their_distance():
    model = made(use("chain", layers=["actnorm"]), use("digits", size=8), levels=17)
    model.bijection.requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    batch = Batch(torch.zeros(400, 1, 8, 8, dtype=torch.float64), {})
    nll = float(model.losses("flow", batch, turn())["nll"])
    width = 2 / 16
    assert nll == pytest.approx(0.5 * (width**2 / 12 + math.log(2 * math.pi)), abs=1e-4)
    assert nll != float(-model.bound(batch, 1, Rng(0), grain=width).mean() / 64)  # which takes x as it is
    model.bijection.requires_grad_(True)  # what is frozen is not initialised from data
    model.prepare("flow", [batch], Rng(0))
    assert float(model.bijection.list_layers().__next__().log_scale.detach()) == pytest.approx(
        -math.log(width / 12**0.5), abs=0.02
    )


def test_a_run_prepares_actnorm_trains_and_reloads(tmp_path):
    run = train(spec(FLOW, RING, steps=2, batch_size=64), tmp_path)
    model = load(run)
    actnorm = next(model.bijection.list_layers())
    torch.testing.assert_close(actnorm.log_scale, torch.full((2,), -math.log(2**0.5)), rtol=0, atol=0.2)  # of the ring
    x = model.sample(4, seed=0)
    assert x.isfinite().all() and torch.equal(x, load(run).sample(4, seed=0))


def test_bf16_is_near_float32():
    model = made().float()
    batch = Batch(torch.randn(64, 2), {})
    with torch.no_grad():
        exact = model.bound(batch, 1, Rng(0))
        with torch.autocast("cpu", torch.bfloat16):
            rough = model.bound(batch, 1, Rng(0))
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().mean() < 0.05
    torch.testing.assert_close(model.sample(8, seed=0, precision="bf16"), model.sample(8, seed=0), rtol=0.1, atol=0.1)


def joined(prior=FLOW, autoencoder=None, **options):
    return use("latent", autoencoder=autoencoder or use("autoencoder", **MLP), prior=prior, **options)


@pytest.mark.wide(1)
@pytest.mark.parametrize("joint", [False, True], ids=["two stages", "joint"])
def test_the_base_of_a_flow_may_have_a_flow_as_its_prior_and_their_log_p_is_exact(joint, tmp_path):
    """A flow whose noise is another's data is one flow: log N + log|det| of both, whatever the latent's scale."""
    model = joined(FLOW, use("flow", bijection=use("coupling", network=NET)), joint=joint)
    model = load(train(spec(model, RING, steps=2, optimizer=use("adamw", lr=0.1)), tmp_path)).double()
    x = torch.randn(5, 2, dtype=torch.float64)

    def whiten(v):
        return model.encode(v[None], "base")[0]

    volumes = [torch.linalg.slogdet(torch.autograd.functional.jacobian(whiten, row)).logabsdet for row in x]
    y = model.encode(x, "base")
    want = -0.5 * (y.square() + math.log(2 * math.pi)).sum(1) + torch.stack(volumes)
    batch = Batch(x, {})
    torch.testing.assert_close(model.bound(batch, 1, Rng(0)), want)
    torch.testing.assert_close(model.decode(y, "base"), x, rtol=0, atol=1e-8)
    if joint:
        losses = model.losses("autoencoder/flow", batch, StepContext(Rng(0)))
        assert list(losses) == ["autoencoder/nll", "autoencoder/cross_entropy"]
        torch.testing.assert_close(sum(losses.values()), -want.mean() / 2)
        torch.testing.assert_close(model.cross_entropy(batch, StepContext(Rng(0))), -want)


@pytest.mark.wide
def test_a_stage_with_a_cache_keeps_the_base(tmp_path):
    model = joined(FLOW, use("flow", bijection=use("coupling", network=NET), conditioner=LABEL))
    stages = [{"players": ["autoencoder/*"], "steps": 2}, {"players": ["prior/*"], "steps": 2, "cache": 1}]
    assert load(train(spec(model, RING, stages=stages), tmp_path)).sample(2, seed=0).isfinite().all()


def test_in_a_turn_gradients_reach_all_that_it_trains(tmp_path):
    game = trainer(spec(use("flow", bijection=STEP, conditioner=LABEL), RING), tmp_path)
    shake(game.model, 0.1)
    batch = Batch(torch.randn(8, 2), {"labels": torch.arange(8)})
    game.model.losses("flow", batch, turn())["nll"].backward()
    assert all(p.grad is not None and p.grad.any() for p in game.model.parameters())


_CONV = {"encoder": use("conv", channels=[4, 4], levels=[8, 4]), "decoder": use("conv", channels=[4, 4])}
test_refusals = refusals(
    (lambda: Flow(TensorType((4,), classes=3)), "Flow expects a continuous type, got 4 codes of 3 classes"),
    (lambda: Flow((TensorType((4,)), TensorType((4,)))), "it expects one tensor as x, got a hierarchy of 2 levels"),
    (
        lambda: Flow(TensorType((4,)), levels=17),
        "Flow expects levels only for an x with a range, got 17 and 4 unbounded",
    ),
    (
        lambda: Flow(TensorType((4,), range=(0, 1)), levels=1),
        "Flow expects levels to be at least 2, got 1",
    ),
    (lambda: made().bound(Batch(torch.zeros(1, 2), {}), 0, Rng(0)), "Flow.bound expects num of at least 1"),
    (lambda: made().decode((torch.zeros(1, 2),) * 2, "base"), "Flow expects one tensor, got a hierarchy of 2"),
    (
        lambda: build(spec(joined(FLOW, use("autoencoder", **{**MLP, "bottleneck": "vq"}), at="codes"))),
        r"codes: Flow expects a continuous type, got .* codes of",
    ),
    (
        lambda: build(spec(joined(FLOW, use("autoencoder", **_CONV, bottleneck="identity")))),
        "continuous: Flow expects one tensor, got a hierarchy of 2 levels",
    ),
)


def test_what_it_decodes_is_in_the_range_of_x():
    """Untrained, it is the identity, so that noise beyond the range is cut, and the rest comes back."""
    model, z = Flow(TensorType((2,), range=(-1.0, 1.0))), torch.tensor([[0.5, 3.0], [-2.0, -0.5]])
    assert model.decode(z, "base").tolist() == model.decode_source(z, "base").tolist() == [[0.5, 1.0], [-1.0, -0.5]]


def test_latents_of_grey_levels_are_drawn_and_never_condensed():
    """The prior of a second stage would otherwise be fitted to the images of a few points."""
    x = TensorType((2,), range=(0.0, 1.0))
    model, points = Flow(x, bijection="actnorm", levels=2), torch.tensor([[0.0, 1.0]]).repeat(50, 1)
    means, draws = model.encode(points, "base"), model.encode(points, "base", Rng(0))
    assert len(means.unique(dim=0)) == 1 and len(draws.unique(dim=0)) == 50
    assert (draws - means).abs().max() <= 0.5 and (draws - means).mean().abs() < 0.2
    assert model.condensers is None and Flow(x, bijection="actnorm").condensers == ("bijection",)
