"""A recomputed module has the gradients of one that is not, to the bit."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from modkit.nn.recompute import recompute
from modkit.nn.units import list_units
from tests.nn.modules import draw, normal
from tests.nn.test_modules import PARTS, inputs

WITH_UNITS = [name for name, case in PARTS.items() if list_units(case.make())]


class Block(nn.Module):
    """A block that draws, and whose buffers each pass moves."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm, self.drop = spectral_norm(nn.Linear(6, 6)), nn.BatchNorm1d(6), nn.Dropout(0.3)

    def forward(self, h):
        return self.drop(torch.tanh(self.norm(self.linear(h))))


def count_passes(module):
    """How often a module inside another begins to compute."""
    passes = []
    next(one for one in module.modules() if one is not module).register_forward_pre_hook(lambda *_: passes.append(1))
    return passes


def compute_gradients(module, x, given, penalized):
    """The gradients of a loss, with a penalty on the gradient at x or without."""
    torch.manual_seed(0)
    y = module(x, *given)
    loss = y.square().sum()
    if penalized:
        (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        loss = loss + gradient.square().sum()
    loss.backward()
    return {name: one.grad for name, one in module.named_parameters()}


def check_equal(made, expected):
    assert made.keys() == expected.keys() and made
    for name, one in made.items():
        assert torch.equal(one, expected[name]), name


def test_networks_have_units():
    assert {
        *("mlp network", "conv encoder", "conv decoder", "unet", "edm2 unet", "dit", "transformer", "ncsnpp"),
        "ncsnpp discriminator",
    } <= {*WITH_UNITS}


@pytest.mark.parametrize("name", WITH_UNITS)
def test_gradients_are_the_same_bits(name):
    plain = draw(PARTS[name].make(), scale=PARTS[name].scale)
    twin = copy.deepcopy(plain)
    for unit in list_units(twin):
        recompute(unit)
        recompute(unit)  # once more changes nothing
    passes = count_passes(list_units(twin)[0])
    assert twin.state_dict().keys() == plain.state_dict().keys()
    x, *given = inputs(name)
    check_equal(*(compute_gradients(module, x, given, False) for module in (copy.deepcopy(twin), plain)))
    with torch.no_grad():
        twin(x, *given)
    assert len(passes) == 3


@pytest.mark.parametrize("penalized", [False, True])
def test_draws_and_buffers_are_those_of_the_first_pass(penalized):
    plain = nn.Sequential(*(Block() for _ in range(3))).double()
    twin = copy.deepcopy(plain)
    for block in twin:
        recompute(block)
    made, expected = (compute_gradients(one, normal(5, 6).requires_grad_(), (), penalized) for one in (twin, plain))
    check_equal(made, expected)
    check_equal(dict(twin.named_buffers()), dict(plain.named_buffers()))


@pytest.mark.parametrize("buffers", [False, True])
def test_a_recomputed_module_is_compiled(buffers):
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4) if buffers else nn.LayerNorm(4)).double()
    twin = copy.deepcopy(plain)
    recompute(twin)
    torch._dynamo.reset()
    twin.compile(backend="eager")
    made, expected = (compute_gradients(one, normal(3, 4), (), False) for one in (twin, plain))
    for name, one in made.items():
        torch.testing.assert_close(one, expected[name])
