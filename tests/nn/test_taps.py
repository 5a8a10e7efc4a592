"""The inner maps of networks, read and added to."""

import pytest
import torch

from modkit.kinds import NetworkExtras, read_extras
from modkit.nn.blocks import crop
from modkit.nn.dit import DiT
from modkit.nn.edm2_unet import EDM2UNet
from modkit.nn.ncsnpp import NCSNpp
from modkit.nn.unet import UNet
from modkit.types import CondType, TensorType
from tests.nn.modules import conditions, draw, normal

COND = CondType(time=True, context=(2, 3))
MAKE = {
    "unet": lambda x: UNet(x, x, COND, channels=[4, 8, 8], blocks=1, attention=[]),
    "edm2-unet": lambda x: EDM2UNet(x, x, COND, channels=[8, 12], blocks=1),
    "dit": lambda x: DiT(x, x, COND, width=12, depth=3, heads=2),
    "ncsnpp": lambda x: make_ncsnpp(x, "residual", "none"),
    "ncsnpp-skip": lambda x: make_ncsnpp(x, "skip", "skip"),
    "ncsnpp-residual": lambda x: make_ncsnpp(x, "none", "residual"),
}


def make_ncsnpp(x, before, after):
    return NCSNpp(x, x, CondType(time=True), channels=[8, 8], blocks=1, progressive_input=before, progressive=after)


@pytest.fixture(params=[(name, size) for name in MAKE for size in ((6,), (7, 6), (3, 2, 4))], ids=str)
def given(request):
    """A network, an input and the conditions."""
    name, size = request.param
    x = TensorType((2, *size))
    return draw(MAKE[name](x), scale=0.3), normal(3, *x.shape), conditions(COND, 3)


def test_maps_are_what_modules_compute_and_have_their_types(given):
    net, x, cond = given
    taps, made = read_extras(net, NetworkExtras).taps, {}
    for name in taps:
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: made.setdefault(name, out))
    y, maps = net.tap(x, cond, list(taps), {})
    assert torch.equal(y, net(x, cond))
    assert list(maps) == list(taps) == list(made)
    for name, one in maps.items():
        assert one.shape[1:] == taps[name].shape
        h = made[name][0] if isinstance(made[name], tuple) else made[name]  # beside a progressive path
        assert torch.equal(one.flatten(2), h.mT if isinstance(net, DiT) else crop(h, one.shape[2:]).flatten(2))


@pytest.mark.wide(1)
def test_what_is_added_moves_the_output_as_its_gradient_says(given):
    net, x, cond = given
    for name, type in net.taps.items():
        h = torch.zeros(3, *type.shape, dtype=torch.float64, requires_grad=True)
        v, w = normal(3, *type.shape, seed=1), normal(*x.shape, seed=2)
        (grad,) = torch.autograd.grad((net.tap(x, cond, (), {name: h})[0] * w).sum(), h)
        with torch.no_grad():
            ahead, behind = (net.tap(x, cond, (), {name: step * v})[0] for step in (1e-5, -1e-5))
        assert grad.any()
        torch.testing.assert_close((grad * v).sum(), ((ahead - behind) * w).sum() / 2e-5, rtol=1e-6, atol=1e-7)


def test_a_map_is_read_with_what_is_added(given):
    net, x, cond = given
    name = list(net.taps)[1]
    shift = normal(3, *net.taps[name].shape)
    (plain,), (moved,) = (net.tap(x, cond, [name], add)[1].values() for add in ({}, {name: shift}))
    torch.testing.assert_close(moved, plain + shift)


def test_unknown_taps_are_refused():
    net = MAKE["dit"](TensorType((2, 4, 4)))
    with pytest.raises(ValueError, match=r"DiT expects taps among blocks\.0, blocks\.1, blocks\.2, got down\.0"):
        net.tap(torch.zeros(1, 2, 4, 4), conditions(COND, 1, torch.float32), ["down.0"], {})
