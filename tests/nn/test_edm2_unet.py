import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from modkit.nn.edm2_unet import EDM2UNet
from modkit.nn.magnitude import UnitConv
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import conditions, draw

SMALL = {"channels": [8, 12], "blocks": 1, "head_channels": 4, "embedding": 10}


def all_of(size: tuple[int, ...]) -> CondType:
    return CondType(vector=3, noise=4, labels=5, context=(6, 7), concat=TensorType((2, *size)), time=True)


def full(size: tuple[int, ...], num: int = 3, **options) -> tuple[EDM2UNet, torch.Tensor, Cond]:
    """A random float64 network with every condition, an input and the conditions."""
    net = EDM2UNet(TensorType((1, *size)), TensorType((3, *size)), all_of(size), **{**SMALL, **options})
    draw(net, scale=1.5).conv_out.gain.data.fill_(1.0)
    return net, torch.randn(num, 1, *size, dtype=torch.float64), conditions(all_of(size), num)


class Equations:
    """The paper's equations over a network's state: a loop over outputs and the kernel's positions, no layers."""

    def __init__(self, net: nn.Module) -> None:
        self.p = net.state_dict()

    def conv(self, x: torch.Tensor, name: str, gain: float = 1.0) -> torch.Tensor:
        """Eq. 47, for each output by itself; rank 0 is a kernel without positions."""
        weight, made = self.p[f"{name}.weight"], []
        padded = nn.functional.pad(x, [weight.shape[-1] // 2] * 2 * (weight.ndim - 2))
        for w in weight:
            w, total = w / math.sqrt(sum(float(v) ** 2 for v in w.flatten())), 0
            for place in itertools.product(*map(range, w.shape[1:])):
                window = tuple(slice(start, start + size) for start, size in zip(place, x.shape[2:]))
                total = total + torch.einsum("bc...,c->b...", padded[(..., *window)], w[(..., *place)])
            made.append(gain * total)
        return torch.stack(made, dim=1)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """Eq. 81."""
        return x / (1 + torch.exp(-x)) / 0.596

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        """Eq. 30."""
        return x / (sum(one**2 for one in x.unbind(1)) / x.shape[1] + 1e-4).sqrt()[:, None]

    def mix(self, a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
        """Eq. 88."""
        return ((1 - t) * a + t * b) / math.sqrt((1 - t) ** 2 + t**2)

    def cat(self, a: torch.Tensor, b: torch.Tensor, t: float = 0.5) -> torch.Tensor:
        """Eq. 103."""
        (n, m), parts = (a.shape[1], b.shape[1]), []
        scale = math.sqrt((n + m) / ((1 - t) ** 2 + t**2))
        parts += [scale * (1 - t) / math.sqrt(n) * one for one in a.unbind(1)]
        parts += [scale * t / math.sqrt(m) * one for one in b.unbind(1)]
        return torch.stack(parts, dim=1)

    def embed(self, cond: Cond) -> torch.Tensor:
        """Eq. 75, and a vector for each condition, all of the same weight in their sum."""
        waves = [
            math.sqrt(2) * torch.cos(2 * math.pi * (f * cond.time + phi))
            for f, phi in zip(self.p["embedding.frequencies"], self.p["embedding.phases"])
        ]
        one_hot = math.sqrt(6) * torch.eye(6, dtype=torch.float64)[cond.labels]
        given = {"time": torch.stack(waves, 1), "vector": cond.vector, "noise": cond.noise, "labels": one_hot}
        return self.silu(sum(self.conv(value, f"embedding.{name}") for name, value in given.items()) / 2)

    def block(self, x: torch.Tensor, name: str, e: torch.Tensor, down: bool) -> torch.Tensor:
        widens = f"{name}.skip.weight" in self.p
        if down:
            x = self.norm(self.conv(x, f"{name}.skip") if widens else x)
        y = self.conv(self.silu(x), f"{name}.conv_1")
        c = 1 + self.conv(e, f"{name}.film", float(self.p[f"{name}.gain"]))
        y = self.conv(self.silu(y * c[(..., *[None] * (x.ndim - 2))]), f"{name}.conv_2")
        return self.mix(self.conv(x, f"{name}.skip") if widens and not down else x, y, 0.3)

    def attend(self, x: torch.Tensor, name: str, tokens: torch.Tensor | None = None) -> torch.Tensor:
        positions = x.flatten(2)
        tokens = positions if tokens is None else tokens.mT
        q, kv, made = self.conv(positions, f"{name}.query"), self.conv(tokens, f"{name}.key_value"), []
        k, v = kv.chunk(2, dim=1)
        for head in range(0, x.shape[1], 4):
            qs, ks, vs = (self.norm(one[:, head : head + 4]) for one in (q, k, v))
            for i in range(qs.shape[2]):
                weights = torch.exp((qs[:, :, i, None] * ks).sum(1) / math.sqrt(4))
                weights = weights / weights.sum(1, keepdim=True)
                made.append((vs * weights[:, None]).sum(2))
        values = torch.stack(made, 2).unflatten(2, (-1, qs.shape[2])).movedim(2, 1).flatten(1, 2)
        return self.mix(x, self.conv(values, f"{name}.out").reshape(x.shape), 0.3)

    def unit(self, x: torch.Tensor, name: str, e: torch.Tensor, tokens: torch.Tensor, down: bool) -> torch.Tensor:
        x = self.attend(self.block(x, f"{name}.block", e, down), f"{name}.attend")
        return self.attend(x, f"{name}.cross", tokens)


def compute_reference(net: EDM2UNet, x: torch.Tensor, cond: Cond) -> torch.Tensor:
    """A network of two levels with one block each, attending at the coarse one."""
    r, axes = Equations(net), range(2, x.ndim)
    e, size = r.embed(cond), x.shape[2:]
    h_0 = r.conv(torch.cat([x, cond.concat, torch.ones_like(x)], dim=1), "conv_in.conv")
    h_1 = r.block(h_0, "down.0.block", e, True)
    h = h_1
    for axis in axes:  # means of pairs, at an odd end of one
        pairs = h.split(2, axis)
        h = torch.cat([pair.mean(axis, keepdim=True) for pair in pairs], axis)
    h_2 = r.block(h, "down.1.block", e, True)
    h_3 = r.unit(h_2, "down.2", e, cond.context, True)
    h = r.block(r.unit(h_3, "middle.0", e, cond.context, False), "middle.1.block", e, False)
    h = r.unit(r.cat(h, h_3), "up.0", e, cond.context, False)
    h = r.unit(r.cat(h, h_2), "up.1", e, cond.context, False)
    for axis, length in zip(axes, size):
        h = h.repeat_interleave(2, axis).narrow(axis, 0, length)
    h = r.block(h, "up.2.block", e, False)
    h = r.block(r.cat(h, h_1), "up.3.block", e, False)
    h = r.block(r.cat(h, h_0), "up.4.block", e, False)
    return r.conv(h, "conv_out.conv", float(net.conv_out.gain))


@pytest.mark.wide(1)
@pytest.mark.parametrize("size", [(8,), (6, 5), (4, 3, 2)], ids=str)
def test_parity_with_the_papers_equations(size):
    net, x, cond = full(size, attention=[-(-max(size) // 2)])
    with torch.no_grad():
        y = net(x, cond)
        torch.testing.assert_close(y, compute_reference(net, x, cond), rtol=1e-9, atol=1e-9)
    assert y.std() > 0.1


@pytest.mark.smoke
def test_new_networks_emit_zero_and_keep_magnitudes_on_average():
    """Borders are padded with zeros, and attention averages independent values: neither is of magnitude 1."""
    cond, size, squares = CondType(time=True, labels=10), (16, 16), []
    given = replace(conditions(cond, 4, torch.float32), time=torch.linspace(-1.5, 1.1, 4))
    for seed in range(8):
        torch.manual_seed(seed)
        net = EDM2UNet(TensorType((3, *size)), TensorType((3, *size)), cond, channels=[32, 48])
        with torch.no_grad():
            y, maps = net.tap(torch.randn(4, 3, *size), given, list(net.taps), {})
            maps |= {"embedding": net.embedding(given, torch.zeros(4, 1))[..., None, None].expand(4, 128, 5, 5)}
        assert not y.any() and len(maps) == 15
        squares.append(torch.stack([one[:, :, 2:-2, 2:-2].square().mean() for one in maps.values()]))
    magnitudes = torch.stack(squares).mean(0).sqrt()
    assert ((magnitudes - 1).abs() < 0.08).all() and (magnitudes - 1).abs().mean() < 0.03


def stretch(net: nn.Module) -> list[UnitConv]:
    """Gives the rows of all weights other lengths; returns their layers."""
    layers = [one for one in net.modules() if isinstance(one, UnitConv)]
    for one in layers:
        lengths = torch.logspace(-3, 3, len(one.weight), dtype=torch.float64)
        one.weight.data *= lengths[(..., *[None] * (one.weight.ndim - 1))]
    return layers


def test_times_of_a_table_keep_their_waves_in_bfloat16():
    """A rounded frequency would turn the wave of t = 999 by up to 999 / 256 / 2 of its turns."""
    net = EDM2UNet(TensorType((1, 4)), TensorType((1, 4)), CondType(time=1), channels=[8], blocks=1)
    time, like = torch.tensor([999.0, 501.0, 3.0]), torch.zeros(3, 1)
    expected = net.embedding(Cond(time=time), like)
    for narrow in (copy.deepcopy(net).bfloat16(), copy.deepcopy(net).half()):
        got = narrow.embedding(Cond(time=time), like.to(next(narrow.parameters()).dtype))
        assert (got - expected).norm() < 0.02 * expected.norm()
        assert torch.equal(narrow.to("cpu", torch.float64).embedding.frequencies.float(), net.embedding.frequencies)


def test_the_lengths_of_weights_change_nothing_and_updates_make_them_one():
    net, x, cond = full((6, 5), attention=[3])
    with torch.no_grad():
        y = net(x, cond)
        layers = stretch(net)
        assert sum(one.weight.numel() for one in layers) == sum(one.numel() for one in net.parameters() if one.ndim)
        torch.testing.assert_close(net(x, cond), y)
        net.update()
        torch.testing.assert_close(net(x, cond), y)
    for one in layers:
        magnitudes = one.weight.detach().flatten(1).square().mean(1).sqrt()
        torch.testing.assert_close(magnitudes, torch.ones_like(magnitudes))


def test_gradients_are_orthogonal_to_weights():
    net, x, cond = full((6, 5), attention=[3])
    layers = stretch(net)
    net(x, cond).square().sum().backward()
    for one in layers:
        w, g = one.weight.detach().flatten(1), one.weight.grad.flatten(1)
        assert (g.norm(dim=1) > 0).all()
        assert ((w * g).sum(1) / (w.norm(dim=1) * g.norm(dim=1))).abs().max() < 1e-9


@pytest.mark.parametrize("name", ["vector", "noise", "labels", "context", "concat", "time"])
def test_each_condition_changes_the_output_of_its_row(name):
    net, x, cond = full((6, 6))
    value = getattr(cond, name).clone()
    value[1] = (value[1] + 1) % 6
    with torch.no_grad():
        moved = (net(x, replace(cond, **{name: value})) - net(x, cond)).abs().flatten(1).amax(1)
    assert moved[1] > 1e-6 and not moved[[0, 2]].any()


@pytest.mark.parametrize("name", ["context", "time", "labels"])
def test_missing_conditions_are_named(name):
    net, x, cond = full((4, 4), attention=[2])
    with pytest.raises(ValueError, match=f"expects a Cond with `{name}`, as its type says, got None"):
        net(x, replace(cond, **{name: None}))
