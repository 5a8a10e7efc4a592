import math

import pytest
import torch

from modkit.nn.minibatch_std import MinibatchStd, minibatch_std


def features(num: int) -> torch.Tensor:
    return torch.randn(num, 3, 2, 2, generator=torch.Generator().manual_seed(num), dtype=torch.float64)


def groups(num: int, group: int) -> list[list[int]]:
    many = num // group
    whole = [[g + many * i for i in range(group)] for g in range(many)]
    rest = list(range(many * group, num))
    return whole + ([rest] if rest else [])


@pytest.mark.parametrize("num, group", [(8, 4), (4, 4), (3, 4), (1, 4), (10, 4), (7, 2), (5, 1), (9, 4)])
def test_each_sample_is_told_its_group_s_mean_deviation(num, group):
    x = features(num)
    want = torch.empty(num, dtype=torch.float64)
    for members in groups(num, group):
        total = 0.0
        for place in range(12):
            values = [float(x[i].flatten()[place]) for i in members]
            mean = sum(values) / len(values)
            total += math.sqrt(sum((v - mean) ** 2 for v in values) / len(values) + 1e-8)
        want[members] = total / 12
    torch.testing.assert_close(minibatch_std(x, group), want, rtol=1e-12, atol=0)
    joined = MinibatchStd(group=group)(x)
    assert joined.shape == (num, 4, 2, 2) and torch.equal(joined[:, :3], x)
    assert torch.equal(joined[:, 3], want.view(-1, 1, 1).expand(-1, 2, 2)) or joined[:, 3].allclose(want[:, None, None])


def test_equal_samples_have_a_finite_gradient_and_bfloat16_is_widened():
    x = torch.ones(4, 2, 1, 1, dtype=torch.float64).requires_grad_()
    minibatch_std(x, 4).sum().backward()
    assert x.grad.isfinite().all()
    torch.testing.assert_close(minibatch_std(x.detach(), 4), torch.full((4,), 1e-4, dtype=torch.float64))
    assert minibatch_std(features(4).bfloat16(), 4).dtype == torch.float32
    assert MinibatchStd()(features(4).bfloat16()).dtype == torch.bfloat16


def test_gradients_cross_a_group_and_stay_in_it():
    x = features(8).requires_grad_()
    (gradient,) = torch.autograd.grad(minibatch_std(x, 4)[0], x)
    assert [i for i in range(8) if gradient[i].any()] == [0, 2, 4, 6]


def test_a_group_holds_at_least_one():
    with pytest.raises(ValueError, match=r"MinibatchStd expects group to be at least 1, got 0"):
        MinibatchStd(group=0)
