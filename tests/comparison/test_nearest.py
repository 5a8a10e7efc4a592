"""Nearest training images against brute force."""

import torch

from modkit.comparison.nearest import find_nearest, read_batches
from modkit.data.digits import Digits
from tests.refusals import check_refusal


def test_brute_force_over_any_batches():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(7, 1, 3, 4, generator=generator)
    train = torch.randn(50, 1, 3, 4, generator=generator)
    distances = (x.double().flatten(1)[:, None] - train.double().flatten(1)).square().sum(-1).sqrt()
    for size in (1, 7, 50):
        found = find_nearest(x, train.split(size))
        torch.testing.assert_close(found.distances, distances.min(1).values, rtol=1e-12, atol=0)
        assert found.indices.tolist() == distances.argmin(1).tolist()
        assert torch.equal(found.images, train[found.indices])


def test_a_copy_lies_at_zero_far_from_the_origin():
    train = 1000 + torch.rand(20, 5)  # where |x|^2 - 2 x t + |t|^2 would cancel
    found = find_nearest(train[[3, 11]].clone(), [train])
    assert found.distances.tolist() == [0.0, 0.0] and found.indices.tolist() == [3, 11]


def test_a_split_is_read_in_order_and_in_batches():
    data = Digits(size=8)
    batches = list(read_batches(data, size=256, most=600))
    assert [len(batch) for batch in batches] == [256, 256, 88]
    whole = torch.cat([*read_batches(data)])
    assert len(whole) == 1437 and torch.equal(torch.cat(batches), whole[:600])


def test_nothing_to_look_in_is_refused():
    check_refusal("at least one batch, got none", find_nearest, torch.zeros(2, 3), [])
    check_refusal(r"samples of shape \(3,\), got \(4,\)", find_nearest, torch.zeros(2, 3), [torch.zeros(5, 4)])
