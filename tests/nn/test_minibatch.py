import math

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode

import modkit.nn.minibatch
from modkit.nn.minibatch import MinibatchDiscrimination
from tests.launches import Launches


def brute_force(layer, features):
    """The paper's sum, pair by pair."""
    m = (features @ layer.project.weight.T).reshape(len(features), layer.kernels, -1)
    pairs = [[torch.exp(-(one - other).abs().sum(1)) for other in m if other is not one] for one in m.unbind()]
    near = [
        sum((near for j, near in enumerate(row) if j != i), torch.zeros_like(row[0])) for i, row in enumerate(pairs)
    ]
    return torch.cat([features, torch.stack(near)], 1)


@pytest.fixture(params=["at once", "in blocks"])
def blocks(request, monkeypatch):
    if request.param == "in blocks":  # 7 samples by 2 or 3
        monkeypatch.setattr(modkit.nn.minibatch, "_CPU_BYTES", 7 * 3 * 2 * 8 * 5 // 2)
    return request.param


def test_features_are_the_papers_sum_over_the_others(blocks):
    layer = MinibatchDiscrimination(4, kernels=3, dims=2).double()
    features = torch.randn(7, 4, dtype=torch.float64)
    made = layer(features).detach()
    m = (features @ layer.project.weight.detach().T).reshape(7, 3, 2)
    for i in range(7):
        for b in range(3):
            near = [math.exp(-sum(abs(float(m[i, b, c] - m[j, b, c])) for c in range(2))) for j in range(7) if j != i]
            assert float(made[i, 4 + b]) == pytest.approx(sum(near), rel=1e-12)
    torch.testing.assert_close(made[:, :4], features)


def test_equal_samples_are_as_near_as_can_be_and_a_lone_one_has_no_neighbour():
    layer = MinibatchDiscrimination(2, kernels=4)
    same = layer(torch.ones(6, 2))
    torch.testing.assert_close(same[:, 2:], torch.full((6, 4), 5.0))
    torch.testing.assert_close(layer(torch.ones(1, 2))[:, 2:], torch.zeros(1, 4))


@pytest.mark.wide(1)
def test_gradients_of_both_orders_match_finite_differences(blocks):
    layer = MinibatchDiscrimination(3, kernels=3, dims=2).double()
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,)) and torch.autograd.gradgradcheck(layer, (x,))


def test_a_penalty_on_gradients_is_that_of_brute_force(blocks):
    layer = MinibatchDiscrimination(3, kernels=3, dims=2).double()
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for compute in (layer, lambda x: brute_force(layer, x)):
        (gradient,) = torch.autograd.grad(compute(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), (x, layer.project.weight)))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_sums_are_made_in_float32_at_least_and_features_keep_their_dtype():
    wide = MinibatchDiscrimination(4, kernels=3).double()
    narrow, x = MinibatchDiscrimination(4, kernels=3).bfloat16(), torch.randn(200, 4).bfloat16()
    narrow.load_state_dict(wide.state_dict())
    wide.load_state_dict(narrow.state_dict())
    wide.project.register_forward_hook(lambda module, given, out: out.bfloat16().double())  # as the narrow one rounds
    got, expected = narrow(x), wide(x.double())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(
        got.double(), expected, rtol=2**-8, atol=0
    )  # sums of 199 terms in bfloat16 are off by .1


def test_100_kernels_launch_at_most_20_times_in_both_passes():
    layer = MinibatchDiscrimination(32, kernels=100).to("meta")
    with Launches() as launches:
        near = layer(torch.empty(64, 32, device="meta", requires_grad=True))
        near.backward(torch.empty_like(near))
    assert 10 < launches.num <= 20


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.bytes = max(self.bytes, result.untyped_storage().nbytes())
        return result


def test_pairs_that_exceed_the_budget_are_compared_in_blocks_and_not_kept(monkeypatch):
    monkeypatch.setattr(modkit.nn.minibatch, "_CPU_BYTES", 2**16)
    layer, x, kept = MinibatchDiscrimination(4, kernels=3, dims=2), torch.randn(200, 4, requires_grad=True), []
    with Largest() as largest, saved_tensors_hooks(lambda one: kept.append(one.nbytes) or one, lambda one: one):
        near = layer(x)
        sizes = list(kept)
        near.sum().backward()
    pairs = 200 * 200 * 3 * 2 * 4
    assert largest.bytes <= 2**16 < pairs and max(sizes) <= 200 * 7 * 4


def test_numbers_below_one_are_refused():
    with pytest.raises(ValueError, match="MinibatchDiscrimination expects kernels to be at least 1, got 0"):
        MinibatchDiscrimination(3, kernels=0)
