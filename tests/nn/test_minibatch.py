import math

import pytest
import torch

from modkit.nn.minibatch import MinibatchDiscrimination


def test_features_are_the_papers_sum_over_the_others():
    layer = MinibatchDiscrimination(4, kernels=3, dims=2).double()
    features = torch.randn(5, 4, dtype=torch.float64)
    made = layer(features).detach()
    m = (features @ layer.project.weight.detach().T).reshape(5, 3, 2)
    for i in range(5):
        for b in range(3):
            near = [math.exp(-sum(abs(float(m[i, b, c] - m[j, b, c])) for c in range(2))) for j in range(5) if j != i]
            assert float(made[i, 4 + b]) == pytest.approx(sum(near), rel=1e-12)
    torch.testing.assert_close(made[:, :4], features)


def test_equal_samples_are_as_near_as_can_be_and_a_lone_one_has_no_neighbour():
    layer = MinibatchDiscrimination(2, kernels=4)
    same = layer(torch.ones(6, 2))
    torch.testing.assert_close(same[:, 2:], torch.full((6, 4), 5.0))
    torch.testing.assert_close(layer(torch.ones(1, 2))[:, 2:], torch.zeros(1, 4))


def test_gradients_match_finite_differences():
    layer = MinibatchDiscrimination(3, kernels=2, dims=2).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match="expects numbers of at least 1, got 3, 0, 5"):
        MinibatchDiscrimination(3, kernels=0)
