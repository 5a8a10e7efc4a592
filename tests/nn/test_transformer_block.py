import math

import pytest
import torch
from torch.nn import functional as F

from modkit.nn.transformer_block import Block, KVCache
from tests.play import shake


def block(**options):
    return shake(Block(8, heads=2, **options).double(), 0.3)


def expected(made, x, causal):
    """The two equations, head by head."""
    normed = F.layer_norm(x, (8,), made.norm_1.weight, made.norm_1.bias)
    query, key, value = (normed @ made.query_key_value.weight.T + made.query_key_value.bias).chunk(3, -1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        scores = query[..., head] @ key[..., head].transpose(1, 2) / math.sqrt(4)
        if causal:
            scores = scores.masked_fill(torch.ones(x.shape[1], x.shape[1]).triu(1).bool(), -math.inf)
        heads.append(scores.softmax(-1) @ value[..., head])
    x = x + torch.cat(heads, -1) @ made.out.weight.T + made.out.bias
    first, _, second, _ = made.mlp
    normed = F.layer_norm(x, (8,), made.norm_2.weight, made.norm_2.bias)
    return x + F.gelu(normed @ first.weight.T + first.bias) @ second.weight.T + second.bias


@pytest.mark.parametrize("causal", [True, False])
def test_a_block_is_attention_and_two_layers_both_residual(causal):
    made, x = block(), torch.randn(3, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(made(x, causal=causal), expected(made, x, causal), rtol=1e-12, atol=1e-12)


def test_with_a_cache_tokens_may_come_one_at_a_time():
    made, x = block(), torch.randn(3, 5, 8, dtype=torch.float64)
    cache = KVCache(5)
    parts = [made(x[:, :2], causal=True, cache=cache)]
    parts += [made(x[:, i : i + 1], causal=True, cache=cache) for i in range(2, 5)]
    torch.testing.assert_close(torch.cat(parts, 1), made(x, causal=True), rtol=1e-12, atol=1e-12)


def test_dropout_is_of_training_alone():
    made, x = block(dropout=0.5), torch.randn(3, 5, 8, dtype=torch.float64)
    assert not torch.equal(made(x, causal=True), made(x, causal=True))
    torch.testing.assert_close(made.eval()(x, causal=True), expected(made, x, True), rtol=1e-12, atol=1e-12)


def test_what_closes_a_residual_starts_smaller_the_more_there_are():
    made = Block(64, residuals=16)
    for layer, std in ((made.query_key_value, 0.02), (made.out, 0.005), (made.mlp[0], 0.02), (made.mlp[2], 0.005)):
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05) and not layer.bias.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads that divide its width, got width 8 and heads 3"),
        ({"heads": 0}, "heads to be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout to be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout to be in \[0, 1\), got -0.1"),
    ],
)
def test_a_number_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=f"Block expects {message}"):
        Block(8, **options)
