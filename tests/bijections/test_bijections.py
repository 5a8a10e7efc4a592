"""What holds for every bijection: its Jacobian and its inverse, by autograd, in float64."""

from functools import partial

import pytest
import torch
from torch.autograd.functional import jacobian

from modkit import TensorType, use
from modkit.cases.subject import Subject
from modkit.parts.registry import find
from modkit.types import Cond, CondType
from tests.play import shake

NET = use("mlp", width=16, depth=1)
SPLINE = {"transform": "spline", "bins": 5, "bound": 2.0}
VECTOR, SINGLE, MAP, MAPS = TensorType((5,)), TensorType((1,)), TensorType((1, 4, 6)), TensorType((3, 2, 2))
SIGNAL, VOLUME = TensorType((2, 6)), TensorType((2, 2, 2, 2))
COUPLING = use("coupling", network=NET)
STEP = use("chain", layers=["actnorm", "linear", use("coupling", network=NET, **SPLINE)])

CASES = {
    "coupling": (COUPLING, (VECTOR, MAP, MAPS, SIGNAL, VOLUME)),
    "coupling checkerboard": (use("coupling", network=NET, split="checkerboard"), (VECTOR, MAPS)),
    "coupling spline": (use("coupling", network=NET, **SPLINE), (VECTOR, MAP, MAPS)),
    "autoregressive": (use("autoregressive", width=16), (VECTOR, SINGLE, MAP)),
    "autoregressive reverse": (use("autoregressive", width=3, depth=1, reverse=True), (VECTOR, MAPS)),
    "autoregressive spline": (use("autoregressive", width=16, depth=3, **SPLINE), (VECTOR,)),
    "linear": ("linear", (VECTOR, MAPS, VOLUME)),
    "actnorm": ("actnorm", (VECTOR, MAPS)),
    "squeeze": (use("squeeze", bijection=COUPLING), (MAP, MAPS, SIGNAL, VOLUME)),
    "squeeze half": (use("squeeze", half=True, bijection="linear"), (MAP, MAPS)),
    "inverse": (use("inverse", bijection=use("autoregressive", width=16)), (VECTOR, MAPS)),
    "chain": (use("chain", layer=STEP, depth=2), (VECTOR, MAPS)),
}
CONDS = {
    "none": CondType(),
    "vector": CondType(vector=3),
    "label": CondType(labels=4),
    "map": CondType(concat=TensorType((2, 2, 3))),
}
EVERY = [(name, x, "none") for name, (_, types) in CASES.items() for x in types]
EVERY += [(name, VECTOR, cond) for name in ("coupling", "autoregressive spline", "inverse", "chain") for cond in CONDS]
PARAMS = pytest.mark.parametrize(("name", "x", "cond"), dict.fromkeys(EVERY), ids=lambda one: str(one))


def build(part, x, cond=CondType(), scale=0.3):
    """A bijection in float64, its parameters moved: new ones are the identity."""
    name, params = (part, {}) if isinstance(part, str) else (part.use, part.params)
    made = Subject(find("bijection", name), params).build({"x": x, "cond": cond})
    return shake(made.double(), scale)


def draw(x, num=3, scale=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(num, *x.shape, generator=generator, dtype=torch.float64)


def draw_cond(cond, num=3):
    return Cond(
        vector=draw(TensorType((cond.vector,)), num, seed=1) if cond.vector else None,
        labels=torch.arange(num) % cond.labels if cond.labels else None,
        concat=draw(cond.concat, num, seed=2) if cond.concat else None,
    )


@PARAMS
def test_log_det_is_slogdet_of_the_jacobian_and_both_directions_return(name, x, cond):
    bijection = build(CASES[name][0], x, CONDS[cond])
    values, given = draw(x), draw_cond(CONDS[cond])
    y, log_det = bijection(values, given)
    assert y.shape == values.shape
    for row in range(len(values)):
        one = given.map(partial(torch.narrow, dim=0, start=row, length=1))
        matrix = jacobian(lambda v, one=one: bijection(v[None], one)[0][0], values[row])
        want = torch.linalg.slogdet(matrix.reshape(x.numel, x.numel)).logabsdet
        torch.testing.assert_close(log_det[row], want, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(bijection.inverse(y, given), values, rtol=0, atol=1e-8)
    torch.testing.assert_close(bijection(bijection.inverse(values, given), given)[0], values, rtol=0, atol=1e-8)
    assert (log_det.abs() > 1e-3).all()
    if cond != "none":
        assert not torch.allclose(bijection(values, given.map(lambda one: 1 - one % 2))[0], y)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_finite_differences(name):
    part, (x, *_) = CASES[name]
    bijection = build(part, x)
    names, values = zip(*((key, one.detach()) for key, one in bijection.named_parameters() if one.numel()))
    few = [one.requires_grad_() for one in values[:2]]

    def run(x, *weights):
        return torch.func.functional_call(bijection, dict(zip(names, weights)), (x,))

    def run_inverse(y):
        return bijection.inverse(y)

    assert torch.autograd.gradcheck(run, (draw(x, 2).requires_grad_(), *few), fast_mode=True)
    assert torch.autograd.gradcheck(run_inverse, (draw(x, 2).requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("name", ["coupling spline", "autoregressive", "linear", "actnorm", "chain"])
def test_under_autocast_it_is_near_float32_and_the_log_det_is_float32(name):
    part, (x, *_) = CASES[name]
    bijection, values = build(part, x, scale=0.1).float(), draw(x, scale=0.5).float()
    y, log_det = bijection(values)
    with torch.autocast("cpu", torch.bfloat16):
        rough, rough_log_det = bijection(values)
        back = bijection.inverse(rough)
    assert (rough.dtype, rough_log_det.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(rough, y, rtol=0, atol=0.05)  # 8 bits of a network's output
    torch.testing.assert_close(rough_log_det, log_det, rtol=0, atol=0.1)
    torch.testing.assert_close(back, values, rtol=0, atol=0.02)
    narrow, wide = bijection.bfloat16()(values.bfloat16())
    assert (narrow.dtype, wide.dtype) == (torch.bfloat16, torch.float32)
