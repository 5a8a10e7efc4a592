import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from modkit.bottlenecks import GumbelQuantizer
from modkit.rng import Rng
from modkit.types import TensorType
from tests.bottlenecks.parts import SHAPES, passing, project
from tests.play import turn
from tests.refusals import refusals


def make(num_codes=5, **keywords):
    """A quantizer whose features are its logits."""
    return passing(GumbelQuantizer(TensorType((num_codes,)), num_codes=num_codes, channels=3, tokens=1, **keywords))


def logits_of(part, h):
    """Logits, `b n k`."""
    logits = project(part, h)
    return logits.flatten(2).transpose(1, 2) if h.ndim > 2 else logits[:, None]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_without_a_step_are_the_likeliest_codes(shape):
    part = GumbelQuantizer(TensorType(shape), num_codes=7, channels=3, tokens=1).double()
    h = 3 * torch.randn(4, *shape, dtype=torch.float64)
    values, kl, losses = part(h, None)
    logits = logits_of(part, h)
    codes = logits.argmax(2)
    assert list(values) == list(part.latents) == ["codes", "quantized"] and losses == {}
    assert part.latents["codes"] == TensorType(shape[1:] or (1,), classes=7)
    assert part.latents["quantized"] == TensorType((3, *shape[1:]))
    assert torch.equal(values["codes"], codes.view(4, *(shape[1:] or (1,))))
    z_q = part.codebook[codes].transpose(1, 2).reshape(4, 3, *shape[1:])
    assert torch.equal(values["quantized"], z_q)
    assert all(torch.equal(part.to_z(name, value), z_q) for name, value in values.items())
    uniform = Categorical(logits=torch.zeros_like(logits))
    torch.testing.assert_close(kl, kl_divergence(Categorical(logits=logits), uniform).sum(1))


@pytest.mark.parametrize("shape", SHAPES)
def test_draws_and_their_log_probability(shape):
    part = GumbelQuantizer(TensorType(shape), num_codes=7, channels=3, tokens=1).double()
    h = torch.randn(4, *shape, dtype=torch.float64)
    values = part(h, turn(1)).values
    codes, log_q = part.posterior("codes", h, turn(1).rng)
    assert torch.equal(codes, values["codes"])
    assert torch.equal(values["quantized"], part.to_z("codes", codes))
    torch.testing.assert_close(log_q, Categorical(logits=logits_of(part, h)).log_prob(codes.flatten(1)).sum(1))
    torch.testing.assert_close(
        part.log_prior("codes", codes), torch.full((4,), -math.prod(shape[1:]) * math.log(7)).double()
    )


@pytest.mark.parametrize("index", [0, 10**6])
def test_draws_follow_the_probabilities_at_any_temperature(index):
    part, logits = make(3), torch.tensor([0.5, 0.2, 0.3]).log()
    codes = part(logits.expand(8000, 3).double(), turn("draws", index)).values["codes"]
    share = codes.flatten().bincount(minlength=3) / 8000
    torch.testing.assert_close(share, torch.tensor([0.5, 0.2, 0.3]), atol=0.02, rtol=0)  # sd .006


def test_gradients_of_a_draw_by_hand():
    part = make(tau_start=0.7, tau_steps=0, tau_end=0.7)
    h = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 3, dtype=torch.float64)
    values = part(h, turn(2)).values
    of_h, of_codes = torch.autograd.grad((weight * values["quantized"]).sum(), (h, part.codebook))

    u = turn(2).rng.uniform("posterior", h)
    y = ((h.detach() - (-u.log()).log()) / 0.7).softmax(1)
    pull = weight @ part.codebook.detach().T
    torch.testing.assert_close(of_h, y * (pull - (y * pull).sum(1, keepdim=True)) / 0.7)
    hard = torch.nn.functional.one_hot(values["codes"].flatten(), 5).double()
    torch.testing.assert_close(of_codes, hard.T @ weight)


def test_gradients_of_the_kl():
    part = make()
    assert torch.autograd.gradcheck(lambda h: part(h, None).kl, torch.randn(3, 5).double().requires_grad_())
    torch.testing.assert_close(part(torch.zeros(2, 5).double(), None).kl, torch.zeros(2).double())
    sure = 1e4 * torch.eye(5, dtype=torch.float64)
    torch.testing.assert_close(part(sure, None).kl, torch.full((5,), math.log(5)).double())


def test_the_temperature_falls_geometrically_and_stays():
    part = make(tau_start=2.0, tau_end=0.5, tau_steps=100)
    assert [part.tau(index) for index in (0, 25, 50, 100, 500)] == pytest.approx([2, 2**0.5, 1, 0.5, 0.5])
    assert make(tau_end=0.25, tau_steps=0).tau(0) == 0.25


def test_the_temperature_of_the_step_is_used():
    part, h = make(tau_start=4.0, tau_end=0.1, tau_steps=10), torch.randn(6, 5, dtype=torch.float64)

    class At:
        def __init__(self, index):
            self.index, self.rng, self.training = index, Rng(0), True

    def gradient(index):
        z = h.clone().requires_grad_()
        return torch.autograd.grad(part(z, At(index)).values["quantized"].sum(), z)[0]

    assert not torch.allclose(gradient(0), gradient(10))
    assert torch.equal(gradient(10), gradient(20))


def test_samples_are_uniform_codes():
    part = GumbelQuantizer(TensorType((3, 2, 2)), num_codes=4, channels=2)
    z = part.sample(2000, Rng(0))
    assert z.shape == (2000, 2, 2, 2)
    codes = torch.cdist(z.movedim(1, -1).flatten(0, 2), part.codebook).argmin(1)
    torch.testing.assert_close(codes.bincount(minlength=4) / 8000, torch.full((4,), 0.25), atol=0.02, rtol=0)
    assert torch.equal(part.sample(2, Rng(0)), z[:2])
    assert GumbelQuantizer(TensorType((3,)), num_codes=4, tokens=6).sample(5, Rng(0)).shape == (5, 24)


test_refuses_keywords = refusals(
    ({"num_codes": 0}, "GumbelQuantizer expects num_codes to be at least 1, got 0"),
    ({"tau_end": 0.0}, r"GumbelQuantizer expects tau_end to be above 0, got 0\.0"),
    ({"tau_steps": -1}, "GumbelQuantizer expects tau_steps to be at least 0, got -1"),
    of=lambda keywords: GumbelQuantizer(TensorType((3, 4, 4)), **keywords),
)
test_refuses_what_it_does_not_have = refusals(
    (lambda: make(4).to_z("continuous", torch.zeros(1, 4)), "expects one of the latents .*, got 'continuous'"),
    (lambda: make(4).log_prior("quantized", torch.zeros(1, 4)), "GumbelQuantizer has a density of its codes only, not"),
    (lambda: make(4).posterior("z", None, Rng(0)), "GumbelQuantizer has a density of its codes only, not of "),
)
