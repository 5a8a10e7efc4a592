import math

import pytest
import torch

from modkit.metrics.jackknife import assign_groups, jackknife_variance, standard_error
from modkit.rng import Rng
from tests.refusals import check_refusal


def mean_and_variance(x, groups):
    sizes = [int((groups == g).sum()) for g in groups.unique()]
    left_out = [float(x[groups != g].mean()) for g in groups.unique()]
    return jackknife_variance(float(x.mean()), left_out, sizes)


def test_a_group_is_a_function_of_the_index_alone_and_balanced_however_data_is_laid_out():
    indices = torch.arange(100_000)
    groups = assign_groups(indices, 10)
    assert torch.equal(assign_groups(indices.flip(0), 10).flip(0), groups)
    for period in (1, 7, 10, 64):
        counts = groups[::period].bincount(minlength=10).double()
        expected = counts.sum() / 10
        assert float(((counts - expected) ** 2 / expected).sum()) < 27.9  # chi^2 with 9 degrees of freedom, 0.1 %


def splitmix64(index):
    mask = 2**64 - 1
    x = (index + 1) * 0x9E3779B97F4A7C15 & mask
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & mask
    x = (x ^ x >> 27) * 0x94D049BB133111EB & mask
    return x ^ x >> 31


def test_the_hash_is_splitmix64s():
    indices = [0, 1, 2, 3, 49_999, 2**40]
    assert assign_groups(torch.tensor(indices), 10).tolist() == [(splitmix64(index) >> 33) % 10 for index in indices]
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the published first output of seed 0


@pytest.mark.parametrize("num", [40, 5])
def test_equal_groups_give_the_variance_of_the_mean_of_their_means(num):
    x = Rng(0).normal("x", torch.empty(40, dtype=torch.float64))
    expected = float(x.view(-1, num).mean(0).var() / num)
    assert mean_and_variance(x, torch.arange(40) % num) == pytest.approx(expected, rel=1e-12)


def test_a_bias_in_1_over_n_adds_no_variance_whatever_the_groups_sizes():
    sizes = [5, 11, 7, 30]
    total = sum(sizes)
    left_out = [3.0 + 20 / (total - size) for size in sizes]
    assert jackknife_variance(3.0 + 20 / total, left_out, sizes) == pytest.approx(0, abs=1e-24)


def test_values_that_are_the_same_have_no_error():
    assert jackknife_variance(58.9, [58.9] * 7, [101, 97, 103, 99, 100, 98, 102]) == 0


def test_the_error_of_a_nonlinear_statistic_is_right_on_average():
    x = Rng(0).normal("x", torch.empty(400, 200, dtype=torch.float64))
    groups = assign_groups(torch.arange(200), 10)
    values = x.var(1)
    sizes = groups.bincount(minlength=10).tolist()
    variances = [
        jackknife_variance(float(row.var()), [float(row[groups != g].var()) for g in range(10)], sizes) for row in x
    ]
    assert sum(variances) / len(variances) == pytest.approx(float(values.var()), rel=0.2)


def test_errors_of_independent_sets_add_and_an_unknown_one_leaves_none():
    assert standard_error(9.0, 16.0) == 5 and standard_error(9.0, None) is None and standard_error(0.0) == 0
    assert jackknife_variance(1.0, [1.0], [3]) is None
    assert not math.isnan(standard_error(1e-300, 0.0))


def test_an_empty_group_is_refused():
    check_refusal(r"sizes \[3, 0\]", jackknife_variance, 1.0, [1.0, 1.0], [3, 0])
