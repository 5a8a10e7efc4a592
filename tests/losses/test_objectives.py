import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from modkit import build, find, use
from modkit.building.migration import read_spec
from modkit.building.plan import plan
from modkit.losses.objectives import ELBO, Balanced, Capacity, FreeBits
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.models.test_autoencoder import made
from tests.play import digits, spec, turn
from tests.refusals import refusals

KL = torch.tensor([[1.0, 0.2, 4.0], [3.0, 0.0, 2.0]], dtype=torch.float64)
Z = TensorType((3, 4, 4))
LEVELS = (TensorType((2, 2, 2)), TensorType((2, 4, 4)), TensorType((4, 4, 4)))


def differentiate(objective, step):
    kl = KL.clone().requires_grad_()
    loss = objective.compute_kl(kl, step)
    loss.backward()
    return loss.detach(), kl.grad


def test_free_bits_cost_no_more_and_no_less_than_lambda_on_the_mean():
    loss, gradient = differentiate(FreeBits(nats=0.5), turn())
    torch.testing.assert_close(loss, torch.tensor(2 + 0.5 + 3).double())
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.0, 0.5]] * 2).double())
    assert differentiate(FreeBits(nats=0.0), turn())[0] == ELBO().compute_kl(KL, turn())


def test_the_capacity_leads_the_kl_up_and_then_holds_it():
    objective = Capacity(nats=8.0, steps=10)
    for index, distance in ((0, 5.1), (5, 1.1), (10, -2.9), (1000, -2.9)):
        loss, gradient = differentiate(objective, turn(index=index))
        torch.testing.assert_close(loss, torch.tensor(abs(distance)).double())
        torch.testing.assert_close(gradient, torch.full((2, 3), 0.5 if distance > 0 else -0.5).double())


@pytest.mark.parametrize(("z", "sizes"), [(Z, (1.0, 1.0, 1.0)), (LEVELS, (8.0, 16.0, 32.0))])
def test_balance_weighs_a_group_by_its_nats_a_variable_as_a_constant_until_it_ends(z, sizes):
    mean = KL.mean(0)
    gamma = (mean + 0.01) / torch.tensor(sizes)
    gamma = 3 * gamma / gamma.sum()
    loss, gradient = differentiate(Balanced(z, steps=10), turn(index=9))
    torch.testing.assert_close(loss, (gamma * mean).sum())
    torch.testing.assert_close(gradient, (gamma / 2).expand(2, 3))
    assert Balanced(z, steps=10).compute_kl(KL, turn(index=10)) == mean.sum()


def balance(kl, groups):
    """NVAE's balance, written out: `kl_balancer_coeff` with "square", and `kl_balancer`.

    They are in `utils.py` of https://github.com/NVlabs/NVAE; `groups` are the numbers of groups, coarsest scale first.
    """
    alpha = torch.tensor([4**scale / num for scale, num in enumerate(groups) for _ in range(num)], dtype=kl.dtype)
    coefficients = kl.abs().mean(0) + 0.01
    coefficients = coefficients / (alpha / alpha.min()) * coefficients.sum()
    coefficients = coefficients / coefficients.mean()
    return coefficients, (kl * coefficients).sum(1).mean()


@pytest.mark.parametrize("groups", [(1, 1), (2, 2), (4, 2), (2, 4), (1, 3, 2)])
def test_balance_is_that_of_the_authors_code(groups):
    """The fault: a scale of four groups and one of two had the coefficients of as many groups each."""
    z = tuple(TensorType((3, 2**scale, 2**scale)) for scale, num in enumerate(groups) for _ in range(num))
    kl = Rng(0).uniform("kl", torch.empty(5, len(z), dtype=torch.float64)) * 4
    coefficients, expected = balance(kl, groups)
    given = kl.clone().requires_grad_()
    loss = Balanced(z).compute_kl(given, turn())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(loss, given)
    torch.testing.assert_close(gradient, (coefficients / 5).expand(5, -1), rtol=1e-12, atol=0)
    earlier = Balanced(z, **find("objective", "balanced").earlier).compute_kl(kl, turn())
    assert torch.isclose(earlier, expected, rtol=1e-9) == (len(set(groups)) == 1)


def test_a_run_of_before_by_scale_was_a_parameter_has_the_earlier_balance():
    """Its lock names the kind of then, `rate`."""
    text = plan(spec(use("autoencoder", objective="balanced"))).resolved.to_yaml()
    assert (former := text.replace("objective:", "rate:").replace(", by_scale: true", "")) != text
    row = {"kind": "rate", "name": "balanced", "distribution": "modkit-generative", "version": "0.1.0", "sha256": ""}
    run = SimpleNamespace(
        spec_text=former, path=Path("run"), lock={"format": 2, "parts": [{**row, "at": ["model.rate"]}]}
    )
    assert plan(read_spec(run)).resolved.model["objective"]["by_scale"] is False


def test_balance_leaves_one_group_as_it_is():
    torch.testing.assert_close(Balanced(LEVELS).compute_kl(KL[:, :1], turn()), KL[:, 0].mean())


class Twins:
    """Two processes, each with one row: this one's mean and the other's."""

    rank, world = 0, 2

    def total(self, value):
        return value + KL[1:].mean(0)


@pytest.mark.parametrize("objective", [FreeBits(nats=0.5), Capacity(nats=4.0), Balanced(LEVELS)])
def test_the_mean_is_that_of_all_processes(objective):
    step = StepContext(Rng(0), training=True, exchange=Twins())
    torch.testing.assert_close(objective.compute_kl(KL[:1], step), objective.compute_kl(KL, turn()))


def test_an_autoencoder_divides_it_by_the_number_of_values():
    x = digits(5, torch.float64).tensor
    kl = made().losses("autoencoder", Batch(x, {}), turn("a"))["kl"]
    model = made(objective=use("capacity", nats=100.0, steps=1))
    latents = model.bottleneck(model.encoder(x), turn("a"))
    torch.testing.assert_close(latents.total_kl.mean() / 64, kl)
    torch.testing.assert_close(
        model.losses("autoencoder", Batch(x, {}), turn("a", index=1))["kl"], (100 - 64 * kl) / 64
    )


def test_a_level_of_a_hierarchy_is_a_group():
    conv = {"encoder": use("conv", channels=[4, 8], levels=[8, 4]), "decoder": use("conv", channels=[8, 4])}
    bottleneck = use("top-down", level=use("gaussian", channels=2))
    model = build(
        spec(use("autoencoder", **conv, bottleneck=bottleneck, objective=use("free-bits", nats=1e3)))
    ).double()
    assert model.losses("autoencoder", digits(3, torch.float64), turn())["kl"] == 2e3 / 64


class Alpha(nn.Module):
    """Rényi's bound of order 1 - weight, with a weight that it learns (Li & Turner, 2016)."""

    weighs = True

    def __init__(self, z):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

    def forward(self, evidence, step):
        draw = evidence.weigh(4)
        mean = (self.weight * draw.log_weights).logsumexp(1) - math.log(4)
        return draw, {"renyi": -mean / self.weight}


def test_an_objective_of_ones_own_is_trained_with_the_autoencoder():
    model, batch = made(objective=use(Alpha)), digits(3, torch.float64)
    losses = model.losses("autoencoder", batch, turn("a"))
    assert list(losses) == ["renyi"] and "objective" in model.players()[0].modules
    (found,) = torch.autograd.grad(losses["renyi"], model.objective.weight)
    assert found < 0  # a power mean increases with its exponent
    with torch.no_grad():
        model.objective.weight.fill_(1.0)
    iwae = made(objective=use("iwae", draws=4))
    iwae.load_state_dict(model.state_dict(), strict=False)
    torch.testing.assert_close(
        model.losses("autoencoder", batch, turn("a"))["renyi"], iwae.losses("autoencoder", batch, turn("a"))["bound"]
    )


JOINT = {
    "autoencoder": use("autoencoder", objective="free-bits"),
    "prior": use("diffusion", network="mlp"),
    "joint": True,
}
test_refuses = refusals(
    (lambda: FreeBits(nats=-1.0), "FreeBits expects nats to be at least 0, got -1"),
    (lambda: Capacity(nats=-1.0), r"Capacity expects nats to be at least 0, got -1\.0"),
    (lambda: Capacity(steps=0), "Capacity expects steps to be at least 1, got 0"),
    (lambda: Balanced(Z, tiny=0.0), r"Balanced expects tiny to be above 0, got 0\.0"),
    (lambda: Balanced(LEVELS).compute_kl(KL[:, :2], turn()), "a KL of one group or of 3, a level each, got 2 groups"),
    (lambda: build(spec(use("latent", **JOINT))), "objective `elbo` in joint training, .*, got FreeBits"),
    (
        lambda: build(spec(use("autoencoder", bottleneck="vq", objective="capacity"))),
        "Capacity expects a bottleneck with a KL, got one without; expected the objective `elbo`",
    ),
)
