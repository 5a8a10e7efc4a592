import pytest
import torch

from modkit.metrics.halves import SPLITS, assign_sides, compute_mean_and_error, count_smallest_half, estimate_error
from modkit.metrics.jackknife import assign_groups
from modkit.rng import Rng

FIRST = [int((assign_groups(torch.arange(200), SPLITS + 1) == group).nonzero()[0]) for group in range(SPLITS + 1)]
"""An index of each group."""


def test_splits_are_balanced_and_part_any_two_groups_as_often():
    signs = assign_sides(torch.tensor(FIRST)).long() * 2 - 1
    assert torch.equal(signs.T @ signs, (SPLITS + 1) * torch.eye(SPLITS + 1, dtype=torch.int64))
    assert torch.equal(signs @ signs.T, (SPLITS + 1) * torch.eye(SPLITS + 1, dtype=torch.int64))
    assert (signs[:, 0] == 1).all()


def test_a_mean_has_the_error_of_its_group_means():
    x = Rng(0).normal("x", torch.empty(SPLITS + 1, dtype=torch.float64))
    value, error = compute_mean_and_error(x[:, None].expand(-1, SPLITS + 1), assign_sides(torch.tensor(FIRST)))
    assert value == pytest.approx(float(x.mean()), rel=1e-12)
    assert error == pytest.approx(float((x.var() / len(x)).sqrt()), rel=1e-12)


def test_the_error_of_a_median_is_the_spread_over_draws():
    x = Rng(0).uniform("x", torch.empty(400, 240, dtype=torch.float64)).square()
    sides = assign_sides(torch.arange(240))
    squares = []
    for row in x:
        pairs = [(float(row[side].median()), float(row[~side].median())) for side in sides[:, 1:].T]
        squares.append(estimate_error(pairs) ** 2)
    assert sum(squares) / len(squares) == pytest.approx(float(x.median(1).values.var()), rel=0.2)


def test_the_smallest_half_is_of_any_split():
    sides = assign_sides(torch.arange(50))
    sizes = [int(side.sum()) for half in (sides, ~sides) for side in half[:, 1:].T]
    assert count_smallest_half(sides) == min(sizes) and count_smallest_half(sides[:1]) == 0
