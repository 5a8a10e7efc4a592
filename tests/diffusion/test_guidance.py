import pytest
import torch

from modkit.conditioners import Label, Map, Several
from modkit.diffusion.guidance import ClassifierFree, NoGuidance, make_conditions
from modkit.rng import Rng
from modkit.types import Cond, Denoised, TensorType

T = torch.tensor(0.5, dtype=torch.float64)


def never(x_t, t):
    raise AssertionError("called")


def normal(name):
    return Rng(0).normal(name, torch.empty(2, 3, dtype=torch.float64))


def test_none_and_unit_scale_are_the_conditional_denoiser_and_never_call_the_other():
    def cond(x_t, t):
        return Denoised(2 * x_t)

    x_t = normal("x")
    for guidance in (NoGuidance(), ClassifierFree(scale=1.0)):
        assert torch.equal(guidance(cond, never)(x_t, T).x_0, 2 * x_t)


@pytest.mark.smoke
@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 7.5])
def test_combining_x_0_combines_eps(scale):
    alpha, sigma = 0.6, 0.8
    x_t, eps_c, eps_u = normal("x"), normal("c"), normal("u")

    def denoiser(eps):
        return lambda x_t, t: Denoised((x_t - sigma * eps) / alpha)

    x_0 = ClassifierFree(scale=scale)(denoiser(eps_c), denoiser(eps_u))(x_t, T).x_0
    expected = eps_u + scale * (eps_c - eps_u)
    torch.testing.assert_close((x_t - alpha * x_0) / sigma, expected, rtol=1e-12, atol=1e-12)


def test_the_learned_variance_is_the_conditional_one():
    v = normal("v")
    guided = ClassifierFree()(lambda x_t, t: Denoised(x_t, v), lambda x_t, t: Denoised(x_t, v + 1))
    assert guided(normal("x"), T).v is v


def test_each_side_is_called_once():
    calls = []

    def denoiser(name):
        return lambda x_t, t: calls.append((name, t)) or Denoised(x_t)

    ClassifierFree()(denoiser("cond"), denoiser("null"))(normal("x"), T)
    assert calls == [("cond", T), ("null", T)]


def test_the_unconditional_side_keeps_maps_and_outer_conditions():
    types = {"labels": TensorType((), classes=3), "low_res": TensorType((1, 2, 2))}
    parts = {"label": lambda fields: Label(fields, width=4), "map": lambda fields: Map(fields)}
    conditioner = Several(types, parts=parts)
    fields = {"labels": torch.tensor([0, 2]), "low_res": normal("x").view(2, 3)[:, :1, None, None].expand(2, 1, 2, 2)}
    outer = Cond(context=normal("outer")[:, None])
    given, null = make_conditions(conditioner, fields, 2, outer)
    assert torch.equal(given.vector, conditioner(fields, None).vector)
    assert torch.equal(null.vector, conditioner.null(2).vector) and not torch.equal(null.vector, given.vector)
    for side in (given, null):
        assert side.concat is not None and torch.equal(side.concat, conditioner(fields, None).concat)
        assert side.context is outer.context
