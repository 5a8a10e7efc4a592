"""What every bottleneck with a projection does, whatever its latents are."""

import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from modkit.bottlenecks import (
    FiniteScalarQuantizer,
    Gaussian,
    GumbelQuantizer,
    LookupFreeQuantizer,
    ResidualQuantizer,
    VectorQuantizer,
)
from modkit.rng import Rng
from modkit.types import TensorType
from tests.bottlenecks.parts import passing
from tests.play import turn

PARTS = {
    "vq": (VectorQuantizer, {"num_codes": 8}),
    "vq-gradient": (VectorQuantizer, {"num_codes": 8, "codebook": "gradient"}),
    "vq-cosine": (VectorQuantizer, {"num_codes": 8, "distance": "cosine", "gradient": "rotation"}),
    "residual": (ResidualQuantizer, {"num_codes": 8, "depth": 3}),
    "residual-shared": (ResidualQuantizer, {"num_codes": 8, "depth": 3, "shared": True, "codebook": "gradient"}),
    "fsq": (FiniteScalarQuantizer, {"levels": [4, 3, 3]}),
    "lfq": (LookupFreeQuantizer, {"bits": 4}),
    "gumbel": (GumbelQuantizer, {"num_codes": 8}),
    "gaussian": (Gaussian, {"channels": 3}),
}
CERTAIN = [name for name in PARTS if name not in ("gumbel", "gaussian")]


def made(name, shape=(6, 3, 4), **keywords):
    cls, small = PARTS[name]
    return cls(TensorType(shape), **{**small, **keywords})


def last(name):
    return "continuous" if name == "gaussian" else "quantized"


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 3, 4), (6, 2, 3, 2)])
def test_values_are_of_the_types_declared_and_decode_to_the_last(name, shape):
    part, h = made(name, shape), torch.randn(3, *shape)
    for step in (None, turn()):
        values = part(h, step).values
        assert list(values) == list(part.latents) and list(values)[-1] == last(name)
        for key, event in part.latents.items():
            assert values[key].shape == (3, *event.shape)
            torch.testing.assert_close(part.to_z(key, values[key]), values[last(name)], rtol=0, atol=1e-6)
        if "codes" in values:
            assert values["codes"].dtype == torch.int64
            assert 0 <= values["codes"].min() and values["codes"].max() < part.latents["codes"].classes


@pytest.mark.parametrize("name", [name for name in PARTS if name != "gaussian"])
def test_a_vector_is_a_map_of_tokens(name):
    part, h = made(name, (12,), tokens=3), torch.randn(5, 12)
    z = part.project(h).unflatten(1, (-1, 3))
    on_map = made(name, tuple(z.shape[1:]))
    torch.nn.init.dirac_(on_map.project.weight)
    torch.nn.init.zeros_(on_map.project.bias)
    rest = {key: value for key, value in part.state_dict().items() if not key.startswith("project.")}
    on_map.load_state_dict({**on_map.state_dict(), **rest})
    got, want = part(h, turn()), on_map(z, turn())
    assert part.latents["codes"].shape[-1] == 3
    assert torch.equal(got.values["codes"], want.values["codes"])
    for latent, value in got.values.items():
        torch.testing.assert_close(value, want.values[latent] if latent == "codes" else want.values[latent].flatten(1))
        torch.testing.assert_close(part.to_z(latent, value), on_map.to_z(latent, want.values[latent]).flatten(1))
    assert got.losses.keys() == want.losses.keys()
    for key, loss in got.losses.items():
        torch.testing.assert_close(loss, want.losses[key])


@pytest.mark.parametrize("name", PARTS)
def test_gradients_reach_every_parameter_and_the_features(name):
    part, h = made(name).double(), torch.randn(9, 6, 3, 4, dtype=torch.float64, requires_grad=True)
    values, kl, losses = part(h, turn())
    through = torch.autograd.grad(values[last(name)].square().sum(), h, retain_graph=True)[0]
    assert through.isfinite().all() and through.abs().sum() > 0
    terms = [values[last(name)].square().sum(), *losses.values(), *(() if kl is None else (kl.sum(),))]
    sum(terms).backward()
    assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in part.parameters())


@pytest.mark.parametrize("name", PARTS)
def test_dtypes(name):
    part, h = made(name), torch.randn(4, 6, 3, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values, kl, losses = part(h, turn())
    assert values[last(name)].dtype == torch.float32
    assert all(loss.dtype == torch.float32 for loss in losses.values()) and (kl is None or kl.dtype == torch.float32)
    half = part.bfloat16()
    values, kl, _ = half(h.bfloat16(), turn())
    assert all(values[key].dtype == torch.bfloat16 for key in part.latents if key != "codes")
    assert all(half.to_z(key, value).dtype == torch.bfloat16 for key, value in values.items())
    assert kl is None or kl.dtype == torch.float32


@pytest.mark.parametrize("name", PARTS)
def test_safetensors_round_trip(name):
    part, other, h = made(name), made(name), torch.randn(4, 6, 3, 4)
    if hasattr(part, "update"):
        part(h, turn())
        part.update(turn())
    other.load_state_dict(load(save(part.state_dict())))
    for key, value in part(h, None).values.items():
        assert torch.equal(other(h, None).values[key], value)


@pytest.mark.parametrize("name", PARTS)
def test_runs_on_the_meta_device(name):
    with torch.device("meta"):
        part = made(name)
        values, _, losses = part(torch.empty(2, 6, 3, 4), turn())
        assert all(part.to_z(key, value).shape == values[last(name)].shape for key, value in values.items())
    assert all(values[key].shape == (2, *event.shape) for key, event in part.latents.items())
    assert all(loss.shape == () for loss in losses.values())


@pytest.mark.parametrize("name", PARTS)
def test_rows_draw_the_same_in_any_split(name):
    part, h = made(name), torch.randn(6, 6, 3, 4)
    whole = part(h, turn()).values
    for i in (0, 2, 4):
        values = part(h[i : i + 2], replace(turn(), rng=turn().rng.rows(i))).values
        torch.testing.assert_close(values, {key: value[i : i + 2] for key, value in whole.items()})


@pytest.mark.parametrize("name", ["vq", "lfq"])
def test_the_straight_through_gradient_is_exactly_the_identity(name):
    cls, small = {**PARTS, "vq": (VectorQuantizer, {"num_codes": 8, "channels": 4})}[name]
    part = passing(cls(TensorType((4,)), tokens=1, **small))
    z, weight = torch.randn(6, 4, dtype=torch.float64, requires_grad=True), torch.randn(6, 4, dtype=torch.float64)
    for quantized in (part(z, None).values["quantized"], part.to_z("continuous", z)):
        assert torch.equal(torch.autograd.grad((weight * quantized).sum(), z)[0], weight)


@pytest.mark.parametrize("name", CERTAIN)
def test_certain_codes_have_log_probability_zero_under_a_uniform_prior(name):
    part, h = made(name), torch.randn(3, 6, 3, 4)
    codes, log_q = part.posterior("codes", h, Rng(0))
    event = part.latents["codes"]
    assert torch.equal(codes, part(h, None).values["codes"]) and torch.equal(log_q, torch.zeros(3))
    torch.testing.assert_close(part.log_prior("codes", codes), torch.full((3,), -event.numel * math.log(event.classes)))


@pytest.mark.parametrize("name", CERTAIN)
def test_refuses_what_it_does_not_have(name):
    part, owner = made(name), PARTS[name][0].__name__
    with pytest.raises(ValueError, match=f"{owner} has no prior to sample from.*`latent`"):
        part.sample(2, Rng(0))
    with pytest.raises(ValueError, match=f"{owner} expects one of the latents .*, got 'z'"):
        part.to_z("z", torch.zeros(1))
    with pytest.raises(ValueError, match=f"{owner} has a posterior of its codes only; 'continuous' has no density"):
        part.posterior("continuous", torch.zeros(1, 6, 3, 4), Rng(0))
    with pytest.raises(ValueError, match=f"{owner} has a prior of its codes only, not of 'quantized'"):
        part.log_prior("quantized", torch.zeros(1))
    with pytest.raises(ValueError, match=f"{owner} expects features of one level, got a hierarchy of 2"):
        PARTS[name][0]((TensorType((3, 2, 2)), TensorType((3, 4, 4))))
