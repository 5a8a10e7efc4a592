import numpy as np
import pytest
import torch

import modkit.metrics.pair_sums as pair_sums
from modkit.metrics.kernel import CMMD, MMD, KernelDistance, kernel_distance
from modkit.rng import Rng
from tests.metrics.streams import precise, streamed
from tests.refusals import refusals


def scored(metric, x, y, **how):
    (score,) = streamed(metric, metric.needs[0], {"real": x, "fake": y}, **how).values()
    return score


def by_pairs(kernel, x, y, *, unbiased=True):
    """A double loop."""

    def mean(a, b, *, same=False):
        pairs = [kernel(p, q) for i, p in enumerate(a) for j, q in enumerate(b) if not (same and unbiased and i == j)]
        return float(np.mean(pairs))

    return mean(x, x, same=True) + mean(y, y, same=True) - 2 * mean(x, y)


def cubic(p, q):
    return float((p @ q / len(p) + 1) ** 3)


def gaussian(*bandwidths):
    return lambda p, q: float(np.mean([np.exp(-float((p - q) @ (p - q)) / (2 * s**2)) for s in bandwidths]))


@pytest.mark.parametrize("tile", [2**24, 7])
def test_the_kernel_distance_is_the_sum_over_pairs(monkeypatch, tile):
    monkeypatch.setattr(pair_sums, "_TILE", tile)
    x, y = precise("x", 9, 4), precise("y", 7, 4) + 1
    expected = by_pairs(cubic, x.numpy(), y.numpy())
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)
    x, y = x.float().double(), y.float().double()
    assert scored(KernelDistance(), x, torch.cat([y, y[:2]])).settings == {"num_subsets": 1, "subset_size": 9}
    whole = scored(KernelDistance(), x, x + 1)
    assert whole.value == pytest.approx(by_pairs(cubic, x.numpy(), (x + 1).float().double().numpy()), rel=1e-12)


def test_subsets_are_drawn_without_replacement_and_averaged():
    x, y = precise("x", 12, 3).float().double(), precise("y", 14, 3).float().double()
    score = scored(KernelDistance(num_subsets=5, subset_size=6), x, y, seed=3)
    values = []
    for subset in range(5):
        chosen = []
        for name, rows in (("real", x), ("fake", y)):
            order = Rng(3).rows(subset).uniform(name, torch.empty(1, len(rows)))[0].argsort()
            assert len(order[:6].unique()) == 6
            chosen.append(rows[order[:6]])
        values.append(kernel_distance(*chosen))
    assert score.value == pytest.approx(np.mean(values), rel=1e-12)
    assert score.counts == {"real": 12, "fake": 14} and len(set(values)) == 5


def test_torch_fidelity_agrees_on_the_same_subsets():
    metric_kid = pytest.importorskip("torch_fidelity.metric_kid", reason="torch-fidelity is not installed")
    x, y = precise("x", 200, 30), precise("y", 200, 30) * 1.1
    how = {"kid_subsets": 4, "kid_subset_size": 50, "rng_seed": 1, "verbose": False}
    theirs = metric_kid.kid_features_to_metric(x, y, **how)
    rng = np.random.RandomState(1)
    draws = [[rng.choice(200, 50, replace=False) for _ in range(2)] for _ in range(4)]
    mine = np.mean([kernel_distance(x[a], y[b]) for a, b in draws])
    assert mine == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-10)


@pytest.mark.parametrize("unbiased", [True, False])
def test_mmd_is_the_sum_over_pairs(unbiased):
    x, y = precise("x", 9, 2).float().double() + 20, precise("y", 8, 2).float().double() + 21
    score = scored(MMD(bandwidths=[0.5, 2.0], unbiased=unbiased), x, y)
    rounded = x.float().double().numpy(), y.float().double().numpy()
    expected = by_pairs(gaussian(0.5, 2.0), *rounded, unbiased=unbiased)
    assert score.value == pytest.approx(expected, rel=1e-11)


def test_the_bandwidth_is_the_median_distance_of_real_samples():
    x, y = precise("x", 9, 2).float(), precise("y", 8, 2).float()
    score = scored(MMD(), x, y)
    median = float(torch.pdist(x.double()).median())
    assert score.settings["bandwidths"] == [pytest.approx(median, rel=1e-12)]
    assert score.value == pytest.approx(by_pairs(gaussian(median), x.double().numpy(), y.double().numpy()), rel=1e-9)


def test_scores_of_other_samples_and_seeds_against_the_same_data_are_comparable():
    x, y = precise("x", 1200, 2), precise("y", 1200, 2)
    first = scored(MMD(), x, y)
    assert first.is_comparable_to(scored(MMD(), x, 3 * y + 1)) and first.is_comparable_to(scored(MMD(), x, y, seed=1))
    order = torch.arange(1199, -1, -1)
    assert first.settings == scored(MMD(), x, y, order=order, split=100).settings


def test_cmmd_is_the_authors_a_thousand_times_the_biased_mmd_of_normalised_features():
    x, y = precise("x", 9, 6).float().double(), (precise("y", 8, 6) + 1).float().double()
    unit = [(z / z.norm(dim=1, keepdim=True)).numpy() for z in (x, y)]
    expected = 1000 * by_pairs(gaussian(10.0), *unit, unbiased=False)
    assert scored(CMMD(), x, y).value == pytest.approx(expected, rel=1e-9)


def test_mmd_between_normals_has_its_closed_form():
    d, s, m, n = 2, 1.5, 0.7, 1500
    score = scored(MMD(bandwidths=[s]), precise("x", n, d), precise("y", n, d) + m)
    same = (s**2 / (s**2 + 2)) ** (d / 2)
    expected = 2 * same - 2 * same * np.exp(-d * m**2 / (2 * (s**2 + 2)))
    assert abs(score.value - expected) < 4 * score.error < 0.4 * expected


test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: kernel_distance(torch.zeros(3, 2), torch.zeros(3, 3)), r"got \(3, 2\) and \(3, 3\)"),
    (lambda: KernelDistance(subset_size=1), "KernelDistance expects subset_size to be at least 2, got 1"),
    (lambda: MMD(bandwidths=[0.0]), r"MMD expects bandwidths\[0\] to be above 0, got 0\.0"),
    (lambda: MMD(of="images"), "'points' or 'features', got 'images'"),
    (lambda: scored(MMD(), torch.ones(5, 2), torch.ones(5, 2)), "most real samples are the same"),
    (lambda: scored(MMD(), precise("x", 5, 2), precise("y", 1, 2)), "at least 2 samples of 'fake', got 1"),
)
