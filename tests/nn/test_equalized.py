import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from modkit.nn.equalized import equalize


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [(nn.Linear(50, 40), 50), (nn.Conv1d(8, 60, 5), 40), (nn.Conv2d(6, 60, 3), 54), (nn.Conv3d(4, 60, 3), 108)],
    ids=["linear", "1-D", "2-D", "3-D"],
)
def test_the_weight_has_the_variance_of_its_fan_in_and_an_optimizer_moves_it_alike(layer, fan_in):
    equalize(layer, gain=0.1)
    original = layer.parametrizations.weight.original
    torch.testing.assert_close(layer.weight, 0.1 * original / math.sqrt(fan_in))
    assert layer.weight.std().item() == pytest.approx(1 / math.sqrt(fan_in), rel=0.1)
    assert not layer.bias.any()

    before, start = layer.weight.detach().clone(), layer.bias.detach().clone()
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-3)
    (layer.weight.sum() + layer.bias.sum()).backward()
    optimizer.step()  # Adam's first step moves each parameter by its rate, whatever the gradient
    torch.testing.assert_close(before - layer.weight, torch.full_like(before, 1e-4 / math.sqrt(fan_in)))
    torch.testing.assert_close(start - layer.bias, torch.full_like(start, 1e-4))


def test_layers_inside_are_equalized_and_others_stay():
    module = equalize(nn.Sequential(nn.Linear(2, 3, bias=False), nn.LayerNorm(3), nn.Embedding(4, 3)))
    assert [parametrize.is_parametrized(layer) for layer in module] == [True, False, False]
