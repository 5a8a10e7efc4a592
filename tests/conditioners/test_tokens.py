import math

import pytest
import torch
from torch.nn import functional as F

from modkit.conditioners import Tokens
from modkit.rng import Rng
from modkit.types import Batch, CondType, TensorType
from tests.refusals import refusals

FIELDS = {"caption": TensorType((5,), classes=7), "labels": TensorType((), classes=4), "mask": TensorType((1, 4, 4))}
SMALL = {"width": 8, "heads": 2}


def captions(num, **options):
    part = Tokens(FIELDS, field="caption", **{**SMALL, **options})
    return part, {"caption": torch.randint(0, 7, (num, 5))}


def by_hand(part, ids):
    """One layer written out over its parameters; ids may be k, none."""
    p = dict(part.named_parameters())

    def norm(x, name):
        x = x - x.mean(-1, keepdim=True)
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

    h = p["embedding.weight"][ids] + p["positions"]
    inner = norm(h, "layers.0.norm1")
    qkv = inner @ p["layers.0.self_attn.in_proj_weight"].T + p["layers.0.self_attn.in_proj_bias"]
    q, k, v = (one.unflatten(-1, (2, 4)) for one in qkv.chunk(3, dim=-1))
    weights = torch.einsum("bihd,bjhd->bhij", q, k).div(math.sqrt(4)).softmax(-1)
    h = h + linear(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2), "layers.0.self_attn.out_proj")
    h = h + linear(F.gelu(linear(norm(h, "layers.0.norm2"), "layers.0.linear1")), "layers.0.linear2")
    return norm(h, "norm")


def test_tokens_are_a_transformer_written_out():
    part, fields = captions(3, depth=1)
    part.double()
    assert part.type == CondType(context=(5, 8))
    torch.testing.assert_close(part(fields, None).context, by_hand(part, fields["caption"]))
    torch.testing.assert_close(part.null(2).context, by_hand(part, torch.full((2, 5), 7)))


def test_evaluation_s_fused_layers_say_the_same():
    part, fields = captions(3)
    with torch.no_grad():
        torch.testing.assert_close(part.eval()(fields, None).context, part.train()(fields, None).context)


def test_without_layers_tokens_are_normalised_embeddings():
    part, fields = captions(2, depth=0)
    want = F.layer_norm(part.embedding(fields["caption"]) + part.positions, (8,))
    torch.testing.assert_close(part(fields, None).context, want)


def test_the_order_of_tokens_counts_by_their_positions_only():
    part, fields = captions(4)
    part.double()
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = {"caption": fields["caption"][:, order]}
    assert (part(moved, None).context - part(fields, None).context[:, order]).abs().max() > 1e-3
    with torch.no_grad():
        part.positions.copy_(part.positions[:1].expand(5, -1))
    torch.testing.assert_close(part(moved, None).context, part(fields, None).context[:, order])


def test_rows_become_none_whole_with_the_probability_and_by_row():
    part, fields = captions(8000, drop=0.3, depth=1)
    with torch.no_grad():
        given, null = part(fields, None).context, part.null(8000).context
        drawn = part(fields, Rng(0)).context
        halves = [part({"caption": fields["caption"][i : i + 5]}, Rng(0).rows(i)).context for i in (0, 5)]
        dropped = torch.isclose(drawn, null, atol=1e-5).flatten(1).all(1)
        torch.testing.assert_close(drawn, torch.where(dropped[:, None, None], null, given))
        torch.testing.assert_close(torch.cat(halves), drawn[:10])
        assert abs(dropped.float().mean() - 0.3) < 0.025  # sd .0051
        part.drop = 1.0
        torch.testing.assert_close(part(fields, Rng(0)).context, null)
        part.drop = 0.0
        torch.testing.assert_close(part(fields, Rng(0)).context, given)


def test_a_label_is_one_token_drawn_by_its_frequency():
    part = Tokens(FIELDS, **SMALL)
    assert part.type == CondType(context=(1, 8)) and part.reads == ("labels",)
    assert part({"labels": torch.tensor([1, 3])}, None).context.shape == (2, 1, 8)
    part.prepare([Batch(torch.zeros(4, 1), {"labels": torch.tensor([0, 0, 0, 2])})])
    counts = part.draw(4000, Rng(0))["labels"].bincount(minlength=4) / 4000
    torch.testing.assert_close(counts, torch.tensor([0.75, 0, 0.25, 0]), atol=0.03, rtol=0)  # sd .007


def test_captions_are_drawn_from_those_kept():
    part, fields = captions(6, keep=4)
    with pytest.raises(ValueError, match="Tokens has no examples to draw from: give caption"):
        part.draw(2, Rng(0))
    part.prepare([Batch(torch.zeros(3, 1), {"caption": fields["caption"][i : i + 3]}) for i in (0, 3)])
    drawn = part.draw(200, Rng(0))["caption"]
    assert {tuple(row) for row in drawn.tolist()} == {tuple(row) for row in fields["caption"][:4].tolist()}


def test_every_parameter_takes_a_gradient_none_included():
    part, fields = captions(64, drop=0.5)
    (part(fields, Rng(0)).context * torch.randn(64, 5, 8)).sum().backward()
    assert not [name for name, p in part.named_parameters() if p.grad is None or not p.grad.any()]
    assert part.embedding.weight.grad[7].any()


test_refuses = refusals(
    ({"field": "text"}, r"Tokens expects the data's field 'text', got fields \['caption', 'labels', 'mask'\]"),
    ({"field": "mask"}, "Tokens expects field 'mask' to be a sequence of token ids, got 1×4×4 unbounded"),
    (
        {"heads": 3},
        "Tokens expects width to be a multiple of heads, got width 128 and heads 3",
    ),
    ({"drop": -1.0}, r"Tokens expects drop to be in \[0, 1\], got -1.0"),
    ({"field": "caption", "keep": -1}, "Tokens expects keep to be at least 0, got -1"),
    of=lambda options: Tokens(FIELDS, **options),
)


def test_refuses_values():
    part, _ = captions(1)
    part.eval()
    with pytest.raises(ValueError, match=r"Tokens expects caption in \[0, 7\), got 0..7"):
        part({"caption": torch.tensor([[0, 1, 2, 3, 7]])}, None)
    with pytest.raises(ValueError, match=r"Tokens expects field 'caption' as int64 of shape \(b, 5\), got .* \(1, 4\)"):
        part({"caption": torch.zeros(1, 4, dtype=torch.int64)}, None)
