import numpy as np
import pytest
import torch

from modkit.metrics.jackknife import groups_of, jackknife_variance, standard_error
from modkit.metrics.precision_recall import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from modkit.rng import Rng
from tests.metrics.streams import streamed


def normal(name, *shape):
    return Rng(0).normal(name, torch.empty(shape))


def scored(metric, real, fake, **how):
    return streamed(metric, "features", {"real": real, "fake": fake}, **how)


def by_prdc(real, fake, k, comparison="<"):
    """prdc's formulas over whole float64 matrices."""
    real, fake = real.double().numpy(), fake.double().numpy()

    def distances(a, b):
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))

    def radius(a):
        return np.partition(distances(a, a), k, axis=-1)[:, k]  # the sample itself is among k + 1

    near = np.less if comparison == "<" else np.less_equal
    pairs, real_radius, fake_radius = distances(real, fake), radius(real)[:, None], radius(fake)[None]
    return {
        "precision": near(pairs, real_radius).any(axis=0).mean(),
        "recall": near(pairs, fake_radius).any(axis=1).mean(),
        "density": near(pairs, real_radius).sum(axis=0).mean() / k,
        "coverage": near(pairs.min(axis=1), real_radius[:, 0]).mean(),
    }


def ours(real, fake, k, comparison):
    pairs = precision_recall, density_coverage
    return {
        key: v for one in pairs for key, v in one(real=real, fake=fake, k=k, comparison=comparison)._asdict().items()
    }


@pytest.mark.parametrize("comparison", ["<", "<="])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("n, d, mean", [(7, 1, 0), (80, 2, 20), (60, 64, 20), (40, 512, 20)])
def test_the_formulas_written_out_agree(n, d, mean, k, comparison):
    real, fake = normal("x", n, d) + mean, normal("y", n, d) * 0.9 + mean
    fake[: n // 4] = real[: n // 4]
    expected = by_prdc(real, fake, k, comparison)
    assert ours(real, fake, k, comparison) == pytest.approx(expected, rel=1e-12)
    scores = scored(PrecisionRecall(k=k, comparison=comparison), real, fake)
    scores |= scored(DensityCoverage(k=k, comparison=comparison), real, fake)
    assert {name: score.value for name, score in scores.items()} == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_prdc_agrees():
    prdc = pytest.importorskip("prdc", reason="prdc is not installed")
    real, fake = normal("x", 200, 16) + 20, normal("y", 200, 16) + 20.2
    theirs = prdc.compute_prdc(real_features=real.double().numpy(), fake_features=fake.double().numpy(), nearest_k=5)
    assert ours(real, fake, 5, "<") == pytest.approx({name: float(value) for name, value in theirs.items()}, rel=1e-12)


def test_ties_at_the_radius_are_within_or_not():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    fake = torch.tensor([[4.0], [5.0], [6.0], [7.0]])
    assert precision_recall(real=real, fake=fake, k=1) == (0.25, 0.25)
    assert precision_recall(real=real, fake=fake, k=1, comparison="<") == (0, 0)
    assert density_coverage(real=real, fake=fake, k=1, comparison="<=") == (0.25, 0.25)
    assert density_coverage(real=real, fake=fake, k=1) == (0, 0)


def test_constant_features_are_all_within_or_none():
    same = torch.full((20, 8), 3.7)
    assert precision_recall(real=same, fake=same) == (1, 1)
    assert density_coverage(real=same, fake=same) == (0, 0)
    assert density_coverage(real=same, fake=same, comparison="<=") == (4, 1)


def test_precision_is_recall_with_the_sets_swapped():
    a, b = normal("x", 100, 3), normal("y", 100, 3) * 2
    one, other = scored(PrecisionRecall(), a, b), scored(PrecisionRecall(), b, a)
    assert one["precision"] == other["recall"] and one["recall"] == other["precision"]
    assert one["precision"].value < one["recall"].value  # wide fakes cover, and stray


def test_coverage_of_the_same_distribution_is_its_expectation():
    real, fake = normal("x", 1500, 4), normal("y", 1500, 4)
    score = scored(DensityCoverage(), real, fake)
    expected = 1 - np.prod([(1500 - i) / (3000 - 1 - i) for i in range(1, 6)])  # eq. 8 of the paper, m = n, k = 5
    assert abs(score["coverage"].value - expected) < 4 * score["coverage"].error < 0.06
    assert abs(score["density"].value - 1) < 4 * score["density"].error < 0.2


@pytest.mark.parametrize("make", [PrecisionRecall, DensityCoverage])
def test_any_order_and_split_give_one_score(make):
    real, fake = normal("x", 80, 3), normal("y", 80, 3) + 0.5
    whole = scored(make(), real, fake)
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    for how in ({"split": 1}, {"split": 13}):
        assert scored(make(), real, fake, order=order, **how) == whole
    assert all(score.error > 0 and score.counts == {"real": 80, "fake": 80} for score in whole.values())


def test_errors_are_the_jackknife_s_with_radii_anew():
    real, fake = normal("x", 60, 2), normal("y", 60, 2) + 0.5
    groups = groups_of(torch.arange(60), 10)
    sizes = torch.bincount(groups, minlength=10)
    present = [g for g in range(10) if sizes[g]]

    def statistic(name, a, b):  # counts may differ here
        return by_prdc(a, b, 3, "<")[name]

    scores = scored(PrecisionRecall(k=3, comparison="<"), real, fake)
    scores |= scored(DensityCoverage(k=3, comparison="<"), real, fake)
    for name, score in scores.items():
        sides = [
            [statistic(name, real[groups != g], fake) for g in present],
            [statistic(name, real, fake[groups != g]) for g in present],
        ]
        variances = [jackknife_variance(score.value, left, [int(sizes[g]) for g in present]) for left in sides]
        assert score.error == pytest.approx(standard_error(*variances), rel=1e-9)


def test_the_error_is_never_much_below_the_spread_over_draws():
    """It is above: a jackknife counts the flips of samples at a ball's edge as if they added up."""
    draws = [(normal(f"x{i}", 150, 2), normal(f"y{i}", 150, 2) + 0.5) for i in range(30)]
    for make in (PrecisionRecall, DensityCoverage):
        scores = [scored(make(), *draw) for draw in draws]
        for name in scores[0]:
            spread = np.std([score[name].value for score in scores], ddof=1)
            error = np.sqrt(np.mean([score[name].error ** 2 for score in scores]))
            assert 0.9 < error / spread < 2.5


def test_few_samples_have_no_error():
    scores = scored(PrecisionRecall(), normal("x", 4, 2), normal("y", 4, 2))
    assert all(score.error is None for score in scores.values())


def test_refusals_say_what_was_expected_and_got():
    with pytest.raises(ValueError, match="PrecisionRecall expects as many .* got 9 real and 8 fake"):
        scored(PrecisionRecall(), normal("x", 9, 2), normal("y", 8, 2))
    with pytest.raises(ValueError, match="density_coverage expects as many .* got 9 real and 8 fake"):
        density_coverage(real=normal("x", 9, 2), fake=normal("y", 8, 2))
    with pytest.raises(ValueError, match="at least 6 samples of 'real', got 5"):
        scored(DensityCoverage(), normal("x", 5, 2), normal("y", 5, 2))
    with pytest.raises(ValueError, match="more than k = 3 samples, got 3"):
        precision_recall(real=normal("x", 3, 2), fake=normal("y", 3, 2))
    with pytest.raises(ValueError, match="k of at least 1 and comparison '<' or '<=', got 0, '<='"):
        PrecisionRecall(k=0)
    with pytest.raises(ValueError, match="got 5, '>'"):
        DensityCoverage(comparison=">")
