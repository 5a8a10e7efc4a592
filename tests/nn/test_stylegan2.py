import math

import pytest
import torch
from torch import Tensor

from modkit import Rng
from modkit.kinds import GeneratorExtras, read_extras
from modkit.nn.fir import FIRUpsample
from modkit.nn.stylegan2 import StyleGAN2Generator
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import beside, draw, leaky, normal
from tests.refusals import refusals

X = TensorType((2, 7, 12), (0.0, 4.0))
Z = TensorType((5,))
LABELS = CondType(labels=4)
GIVEN = Cond(labels=torch.tensor([0, 4, 1]))
TINY = {"channels": 3, "style": 4}


def make(**options: object) -> StyleGAN2Generator:
    return draw(StyleGAN2Generator(Z, X, LABELS, **{**TINY, **options}), scale=1.0)


def square(x: Tensor) -> Tensor:
    """Divided by the root of the mean square."""
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def activate(h: Tensor) -> Tensor:
    return math.sqrt(2) * leaky(h)


@pytest.mark.parametrize("balance", [True, False])
def test_the_mapping_is_written_out(balance):
    net, z = make(mapping=3, balance=balance), normal(3, 5)
    p = {name.replace("parametrizations.", ""): value for name, value in net.named_parameters()}
    e = p["embedding.labels.weight"][GIVEN.labels]
    h = torch.cat([square(z), beside(e, z, True) if balance else square(e)], dim=1)
    for index, fan_in in enumerate((h.shape[1], 4, 4)):
        weight, bias = (p[f"mapping.{index}.{name}.original"] for name in ("weight", "bias"))
        h = activate(0.01 / math.sqrt(fan_in) * h @ weight.T + 0.01 * bias)
    torch.testing.assert_close(net.styles(z, GIVEN), h)


def test_the_synthesis_is_a_sum_over_levels_by_the_styles_of_each_layer():
    """Layers one by one, with noise and styles of their own; the convolutions are those of test_modulated.py."""
    net, w = make(), normal(3, 4, 4)
    assert [tuple(layer.size) for layer in net.layers] == [(4, 6), (7, 12), (7, 12)]
    noise = [Rng(3).normal(f"noise-{i}", torch.empty(3, 1, *layer.size).double()) for i, layer in enumerate(net.layers)]
    h, maps = net.start.expand(3, -1, -1, -1), []
    for layer, style, drawn in zip(net.layers, w.unbind(1), noise):
        h = activate(layer.conv(h, style)[:, :, : layer.size[0]] + layer.strength * drawn + layer.bias)
        maps.append(h)
    shares = [out.conv(h, style) + out.bias for out, h, style in zip(net.outs, maps[::2], (w[:, 1], w[:, 3]))]
    y = FIRUpsample(2).double()(shares[0])[:, :, :7] + shares[1]
    torch.testing.assert_close(net.synthesis(w, Rng(3)), 2 + 2 * torch.tanh(y))
    for out, h, style in zip(net.outs, maps[::2], (w[:, 1], w[:, 3])):  # they modulate, but do not demodulate
        weight = out.conv.conv.weight[:, :, 0, 0]
        expected = torch.einsum("bchw,bc,oc->bohw", h, 1 + out.conv.affine(style), weight)
        torch.testing.assert_close(out.conv(h, style), expected)


def test_a_call_is_the_synthesis_of_the_styles_and_noise_starts_at_zero():
    net, z = make(mixing=0.0), normal(3, 5)
    assert read_extras(net, GeneratorExtras).draws
    torch.testing.assert_close(net(z, GIVEN, Rng(1)), net.synthesis(net.styles(z, GIVEN), Rng(1)))
    assert not torch.equal(net(z, GIVEN, Rng(1)), net(z, GIVEN, Rng(2)))
    assert torch.equal(net(z[1:], Cond(labels=GIVEN.labels[1:]), Rng(1).rows(1)), net(z, GIVEN, Rng(1))[1:])
    fresh = StyleGAN2Generator(Z, X, LABELS, **TINY).double()
    assert torch.equal(fresh(z, GIVEN, Rng(1)), fresh(z, GIVEN)) is False  # in training it mixes styles
    assert torch.equal(fresh.eval()(z, GIVEN, Rng(1)), fresh(z, GIVEN))
    plain = make(noise=False, mixing=0.0)
    assert not read_extras(plain, GeneratorExtras).draws
    assert not [name for name, _ in plain.named_parameters() if "strength" in name]


def test_mixing_replaces_the_styles_from_a_layer_on_in_a_share_of_the_samples():
    net, z = make(mixing=0.4), normal(600, 5)
    cond = Cond(labels=torch.zeros(600, dtype=torch.int64))
    seen: list[Tensor] = []
    net._synthesize = lambda w, rng: seen.append(w)
    net(z, cond, Rng(5))
    own, other = net.styles(z, cond), net.styles(Rng(5).normal("z", z), cond)
    is_own = (seen[0] == own[:, None]).all(2)
    assert ((seen[0] == other[:, None]).all(2) | is_own).all()
    assert is_own[:, 0].all()
    num_own = is_own.sum(1)  # of 4: all, or 1 to 3 before the layer
    assert torch.equal(is_own, torch.arange(4) < num_own[:, None])
    assert num_own.bincount()[4] / 600 == pytest.approx(0.6, abs=0.06)  # three standard errors
    assert num_own.bincount()[1:4].div(600).tolist() == pytest.approx([0.4 / 3] * 3, abs=0.045)
    net.eval()(z, cond, Rng(5))
    assert torch.equal(seen[1], own[:, None].expand(-1, 4, -1))


@pytest.mark.parametrize("type", [CondType(), LABELS], ids=["alone", "labels"])
def test_truncation_draws_styles_to_their_mean_under_the_same_conditions(type):
    made = {psi: draw(StyleGAN2Generator(Z, X, type, truncation=psi, **TINY), scale=30.0) for psi in (1.0, 0.5, 0.0)}
    z, cond = normal(3, 5), GIVEN if type.labels else Cond()
    whole, half, none = (made[psi].eval().styles(z, cond) for psi in made)
    torch.testing.assert_close(half, (whole + none) / 2)
    draws = normal(20_000, 5, seed=9)
    for row, center in enumerate(none.expand(3, -1)):
        every = made[1.0].styles(draws, Cond(labels=cond.labels[row].expand(20_000)) if type.labels else cond)
        error = every.std(0) / 16  # of a mean of 256 draws
        assert ((center - every.mean(0)).abs() < 4 * error).all()
    made[0.5].train()
    assert torch.equal(made[0.5].styles(z, cond), whole)


@pytest.mark.parametrize("shape", [(2, 7), (1, 16, 9), (1, 2, 2), (1, 3, 8, 5)], ids=str)
def test_any_size_and_rank(shape):
    net = draw(StyleGAN2Generator(Z, TensorType(shape), CondType(), **TINY))
    assert net(normal(3, 5), Cond(), Rng(0)).shape == (3, *shape)


test_mistakes_are_refused = refusals(
    (lambda: StyleGAN2Generator(Z, TensorType((4,)), LABELS), "StyleGAN2Generator expects continuous maps of shape"),
    (lambda: StyleGAN2Generator(TensorType((5,), classes=3), X, LABELS), "StyleGAN2Generator expects continuous z"),
    (lambda: StyleGAN2Generator(Z, X, CondType(concat=X)), "StyleGAN2Generator expects cond without context and"),
    (lambda: make(channels=0), "StyleGAN2Generator expects channels to be at least 1, got 0"),
    (lambda: make(mixing=1.5), r"StyleGAN2Generator expects mixing to be in \[0, 1\], got 1\.5"),
    (lambda: make().synthesis(normal(3, 2, 4)), r"expects styles of 4 layers, got \(3, 2, 4\)"),
)
