import pytest
import torch
from torch.nn import functional as F

from modkit.nn.conditional_norm import ConditionalBatchNorm
from tests.nn.modules import draw, normal


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_vector_scales_and_shifts_what_is_normalised_over_the_batch(rank):
    layer = draw(ConditionalBatchNorm(rank, 3, 4))
    x, vector = normal(5, 3, *[4] * rank), normal(5, 4, seed=2)
    flat = x.transpose(0, 1).flatten(1)
    shape = (1, 3, *[1] * rank)
    plain = (x - flat.mean(1).view(shape)) / (flat.var(1, unbiased=False).view(shape) + 1e-5).sqrt()
    scale, shift = (vector @ layer.film.weight.T).view(5, 6, *[1] * rank).chunk(2, dim=1)
    torch.testing.assert_close(layer(x, vector), (1 + scale) * plain + shift)
    assert not any("norm" in name for name, _ in layer.named_parameters())


def test_without_a_vector_it_is_batch_norm():
    layer, x = draw(ConditionalBatchNorm(2, 3, 0)), normal(5, 3, 4, 4)
    expected = F.batch_norm(x, None, None, layer.norm.weight, layer.norm.bias, training=True)
    torch.testing.assert_close(layer(x, x.new_empty(5, 0)), expected)
