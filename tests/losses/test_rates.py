import pytest
import torch

from modkit import build, find, use
from modkit.losses.rates import Balanced, Capacity, FreeBits, Sum
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.models.test_autoencoder import made
from tests.play import digits, spec, turn
from tests.refusals import refusals

KL = torch.tensor([[1.0, 0.2, 4.0], [3.0, 0.0, 2.0]], dtype=torch.float64)
Z = TensorType((3, 4, 4))
LEVELS = (TensorType((2, 2, 2)), TensorType((2, 4, 4)), TensorType((4, 4, 4)))


def differentiate(rate, step):
    kl = KL.clone().requires_grad_()
    loss = rate(kl, step)
    loss.backward()
    return loss.detach(), kl.grad


def test_free_bits_cost_no_more_and_no_less_than_lambda_on_the_mean():
    loss, gradient = differentiate(FreeBits(nats=0.5), turn())
    torch.testing.assert_close(loss, torch.tensor(2 + 0.5 + 3).double())
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.0, 0.5]] * 2).double())
    assert differentiate(FreeBits(nats=0.0), turn())[0] == Sum()(KL, turn())


def test_the_capacity_leads_the_kl_up_and_then_holds_it():
    rate = Capacity(nats=8.0, steps=10)
    for index, distance in ((0, 5.1), (5, 1.1), (10, -2.9), (1000, -2.9)):
        loss, gradient = differentiate(rate, turn(index=index))
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
    assert Balanced(z, steps=10)(KL, turn(index=10)) == mean.sum()


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
    loss = Balanced(z)(given, turn())
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(loss, given)
    torch.testing.assert_close(gradient, (coefficients / 5).expand(5, -1), rtol=1e-12, atol=0)
    earlier = Balanced(z, **find("rate", "balanced").earlier)(kl, turn())
    assert torch.isclose(earlier, expected, rtol=1e-9) == (len(set(groups)) == 1)


def test_balance_leaves_one_group_as_it_is():
    torch.testing.assert_close(Balanced(LEVELS)(KL[:, :1], turn()), KL[:, 0].mean())


class Twins:
    """Two processes, each with one row: this one's mean and the other's."""

    rank, world = 0, 2

    def total(self, value):
        return value + KL[1:].mean(0)


@pytest.mark.parametrize("rate", [FreeBits(nats=0.5), Capacity(nats=4.0), Balanced(LEVELS)])
def test_the_mean_is_that_of_all_processes(rate):
    step = StepContext(Rng(0), training=True, exchange=Twins())
    torch.testing.assert_close(rate(KL[:1], step), rate(KL, turn()))


def test_an_autoencoder_divides_it_by_the_number_of_values():
    x = digits(5, torch.float64).tensor
    kl = made().losses("autoencoder", Batch(x, {}), turn("a"))["kl"]
    model = made(rate=use("capacity", nats=100.0, steps=1))
    latents = model.bottleneck(model.encoder(x), turn("a"))
    torch.testing.assert_close(latents.total_kl.mean() / 64, kl)
    torch.testing.assert_close(
        model.losses("autoencoder", Batch(x, {}), turn("a", index=1))["kl"], (100 - 64 * kl) / 64
    )


def test_a_level_of_a_hierarchy_is_a_group():
    conv = {"encoder": use("conv", channels=[4, 8], levels=[8, 4]), "decoder": use("conv", channels=[8, 4])}
    bottleneck = use("top-down", level=use("gaussian", channels=2))
    model = build(spec(use("autoencoder", **conv, bottleneck=bottleneck, rate=use("free-bits", nats=1e3)))).double()
    assert model.losses("autoencoder", digits(3, torch.float64), turn())["kl"] == 2e3 / 64


JOINT = {"autoencoder": use("autoencoder", rate="free-bits"), "prior": use("diffusion", network="mlp"), "joint": True}
test_refuses = refusals(
    (lambda: FreeBits(nats=-1.0), "FreeBits expects nats to be at least 0, got -1"),
    (lambda: Capacity(nats=-1.0), r"Capacity expects nats to be at least 0, got -1\.0"),
    (lambda: Capacity(steps=0), "Capacity expects steps to be at least 1, got 0"),
    (lambda: Balanced(Z, tiny=0.0), r"Balanced expects tiny to be above 0, got 0\.0"),
    (lambda: Balanced(LEVELS)(KL[:, :2], turn()), "a KL of one group or of 3, a level each, got 2 groups"),
    (lambda: build(spec(use("latent", **JOINT))), "expects the rate `sum` .*, got FreeBits: in joint training"),
    (
        lambda: build(spec(use("autoencoder", bottleneck="vq", rate="capacity"))),
        "expects the rate `sum` .*, got Capacity: the bottleneck VectorQuantizer has none",
    ),
)
