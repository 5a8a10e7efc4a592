import math
from functools import partial

import pytest
import torch
from torch import nn

import modkit
from modkit.nn.attention import Attention, attend, attend_to_itself, find_attention_levels
from modkit.types import Cond, CondType, TensorType
from tests.nn.modules import Written, randomized


@pytest.mark.smoke
@pytest.mark.parametrize("size", [(5,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("width", [None, 6])
def test_attention_is_an_explicit_softmax(size, width):
    attention = randomized(Attention(8, context=width, head_channels=4).double(), 0.5)
    assert attention.heads == 2
    x = torch.randn(3, 8, *size, dtype=torch.float64)
    context = None if width is None else torch.randn(3, 7, width, dtype=torch.float64)
    torch.testing.assert_close(
        attention(x, context), Written(nn.ModuleDict({"a": attention})).attend(x, "a", context, 4)
    )


@pytest.mark.parametrize("width", [None, 6])
def test_attention_is_torch_s(width):
    """Latent diffusion's eq. 4 and 5: Q from the map, K and V from the tokens."""
    attention = randomized(Attention(8, context=width, head_channels=4).double(), 0.5)
    x = torch.randn(3, 8, 2, 3, dtype=torch.float64)
    context = None if width is None else torch.randn(3, 7, width, dtype=torch.float64)
    positions = attention.norm(x).flatten(2).mT
    source = positions if context is None else context
    other = nn.MultiheadAttention(8, 2, kdim=width, vdim=width, batch_first=True, dtype=torch.float64)
    (key, value), (key_bias, value_bias) = attention.key_value.weight.chunk(2), attention.key_value.bias.chunk(2)
    with torch.no_grad():
        if width is None:
            other.in_proj_weight.copy_(torch.cat([attention.query.weight, key, value]))
        else:
            other.q_proj_weight.copy_(attention.query.weight)
            other.k_proj_weight.copy_(key)
            other.v_proj_weight.copy_(value)
        other.in_proj_bias.copy_(torch.cat([attention.query.bias, key_bias, value_bias]))
    other.out_proj.load_state_dict(attention.out.state_dict())
    y, _ = other(positions, source, source)
    torch.testing.assert_close(attention(x, context), x + y.mT.reshape(x.shape))


@pytest.mark.parametrize("name", ["unet", "dit", "edm2-unet", "ncsnpp"])
def test_perturbed_self_attention_has_the_identity_for_a_map(name, monkeypatch):
    """By brute force: products with maps that are written out, of which those between positions are the identity."""
    x, tokens = TensorType((2, 4, 4)), 3
    unet = {"channels": [8], "blocks": 1, "attention": [4]}
    params = {"unet": unet, "edm2-unet": unet, "ncsnpp": unet, "dit": {"width": 8, "depth": 2, "heads": 2}}
    crosses = name != "ncsnpp"
    net = modkit.find("network", name).load()(x, x, CondType(context=(tokens, 5) if crosses else None), **params[name])
    net = randomized(net.double(), 0.5)
    context = torch.randn(2, tokens, 5, dtype=torch.float64) if crosses else None
    given = torch.randn(2, 2, 4, 4, dtype=torch.float64), Cond(context=context)
    before = net(*given)
    with attend_to_itself(net.self_attention):
        got = net(*given)

    def attend_written(query, key, value):
        weights = (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)
        return (weights if key.shape[2] == tokens else torch.eye(key.shape[2]).to(key)) @ value

    assert torch.equal(net(*given), before)
    for module in ("attention", "dit_block", "edm2_unet"):
        monkeypatch.setattr(f"modkit.nn.{module}.attend", attend_written)
    torch.testing.assert_close(got, net(*given), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(got, before)


def test_new_attention_is_the_identity():
    x = torch.randn(2, 8, 3, 3)
    assert torch.equal(Attention(8)(x), x)


def test_cross_attention_does_not_mix_positions():
    attention = randomized(Attention(8, context=5).double(), 0.5)
    attention.norm = nn.Identity()  # its statistics are the only way between positions
    x, context = torch.randn(1, 8, 4, dtype=torch.float64), torch.randn(1, 6, 5, dtype=torch.float64)
    moved = x.clone()
    moved[..., 0] += 1
    same = attention(x, context)[..., 1:] == attention(moved, context)[..., 1:]
    assert same.all()


@pytest.mark.parametrize(
    ("channels", "head", "heads"), [(8, 32, 1), (64, 32, 2), (96, 32, 3), (40, 32, 1), (128, 16, 8)]
)
def test_heads_divide_the_channels(channels, head, heads):
    assert Attention(channels, head_channels=head).heads == heads


def test_tokens_are_given_where_expected_only():
    x, context = torch.randn(1, 8, 4), torch.randn(1, 2, 5)
    with pytest.raises(ValueError, match="Attention expects tokens `context`, got None"):
        Attention(8, context=5)(x)
    with pytest.raises(ValueError, match=r"Attention expects no context, got \(1, 2, 5\)"):
        Attention(8)(x, context)


def test_attention_gradients():
    attention = randomized(Attention(4, context=3, head_channels=2).double(), 0.5)
    x = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    context = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention, (x, context))


@pytest.mark.parametrize("width", [None, 8])
def test_frozen_attention_is_the_same_to_the_bit(width):
    attention = randomized(Attention(8, context=width), 0.5)
    x = torch.randn(4, 8, 4, 4)
    context = None if width is None else torch.randn(4, 8, 16).mT
    with torch.no_grad():
        trainable = attention(x, context)
        assert torch.equal(attention.requires_grad_(False)(x, context), trainable)


def test_attended():
    sizes = [(16, 9), (8, 5), (4, 3)]
    assert find_attention_levels("Net", sizes, [16, 4]) == [True, False, True]
    with pytest.raises(ValueError, match=r"Net expects attention at resolutions among \[16, 8, 4\], got \[5\]"):
        find_attention_levels("Net", sizes, [5])


def attend_explicitly(query, key, value, *, causal):
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -math.inf)
    return scores.softmax(-1) @ value


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # torch's own, by its jvp
@pytest.mark.parametrize("causal", [False, True])
def test_attend_and_its_derivatives_in_both_modes_are_the_equation_s(causal):
    """The fault: the CPU's fused kernel has no forward mode, and torch raises."""
    given = tuple(torch.randn(2, 3, 4, 5, dtype=torch.float64) for _ in range(3))
    tangents = tuple(torch.randn_like(one) for one in given)
    made, expected = (partial(function, causal=causal) for function in (attend, attend_explicitly))
    torch.testing.assert_close(made(*given), expected(*given))
    for one, other in zip(torch.func.jvp(made, given, tangents), torch.func.jvp(expected, given, tangents)):
        torch.testing.assert_close(one, other)
    slopes = [torch.func.grad(lambda *g, f=f: f(*g).sin().sum(), (0, 1, 2))(*given) for f in (made, expected)]
    torch.testing.assert_close(*slopes)
