from functools import partial

import numpy as np
import pytest
import torch

from modkit.metrics.halves import SPLITS, assign_sides, estimate_error
from modkit.metrics.precision_recall import PRDC, DensityCoverage, PrecisionRecall
from tests.metrics.streams import normal, streamed, values_of
from tests.refusals import refusals


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


def one_rule(k, comparison):
    return {"k": k, "comparison": comparison, "coverage_k": k, "coverage_comparison": comparison}


@pytest.mark.parametrize("comparison", ["<", "<="])
@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("n, d, mean", [(7, 1, 0), (80, 2, 20), (60, 64, 20), (40, 512, 20)])
def test_the_formulas_written_out_agree(n, d, mean, k, comparison):
    real, fake = normal("x", n, d) + mean, normal("y", n, d) * 0.9 + mean
    fake[: n // 4] = real[: n // 4]
    expected = by_prdc(real, fake, k, comparison)
    assert values_of(PRDC(**one_rule(k, comparison)), real=real, fake=fake) == pytest.approx(expected, rel=1e-12)


def test_rules_may_differ_and_each_part_gives_its_scores_of_the_whole():
    real, fake = normal("x", 80, 4), normal("y", 80, 4) + 0.5
    whole = scored(PRDC(), real, fake)
    first, second = by_prdc(real, fake, 3, "<="), by_prdc(real, fake, 5, "<")
    expected = {name: (first if name in ("precision", "recall") else second)[name] for name in first}
    assert {name: score.value for name, score in whole.items()} == pytest.approx(expected, rel=1e-12)
    assert values_of(PRDC(), real=real, fake=fake) == {name: score.value for name, score in whole.items()}
    assert scored(PrecisionRecall(), real, fake) | scored(DensityCoverage(), real, fake) == whole
    assert all(score.error > 0 and score.counts == {"real": 80, "fake": 80} for score in whole.values())
    assert whole["recall"].settings == {"k": 3, "comparison": "<="}
    assert whole["coverage"].settings == {"k": 5, "comparison": "<"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_prdc_agrees():
    library = pytest.importorskip("prdc", reason="prdc is not installed")
    real, fake = normal("x", 200, 16) + 20, normal("y", 200, 16) + 20.2
    arrays = {"real_features": real.double().numpy(), "fake_features": fake.double().numpy()}
    theirs = {name: float(value) for name, value in library.compute_prdc(**arrays, nearest_k=5).items()}
    assert values_of(PRDC(**one_rule(5, "<")), real=real, fake=fake) == pytest.approx(theirs, rel=1e-12)


def test_ties_at_the_radius_are_within_or_not():
    real = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    fake = torch.tensor([[4.0], [5.0], [6.0], [7.0]])
    assert set(values_of(PRDC(**one_rule(1, "<=")), real=real, fake=fake).values()) == {0.25}
    assert set(values_of(PRDC(**one_rule(1, "<")), real=real, fake=fake).values()) == {0}


def test_constant_features_are_all_within_or_none():
    same = torch.full((20, 8), 3.7)
    assert list(values_of(PRDC(), real=same, fake=same).values()) == [1, 1, 0, 0]
    assert list(values_of(PRDC(coverage_comparison="<="), real=same, fake=same).values()) == [1, 1, 4, 1]


def test_precision_is_recall_with_the_sets_swapped():
    a, b = normal("x", 100, 3), normal("y", 100, 3) * 2
    one, other = scored(PRDC(), a, b), scored(PRDC(), b, a)
    assert one["precision"] == other["recall"] and one["recall"] == other["precision"]
    assert one["precision"].value < one["recall"].value  # wide fakes cover, and stray


def test_coverage_of_the_same_distribution_is_its_expectation():
    real, fake = normal("x", 1500, 4), normal("y", 1500, 4)
    score = scored(PRDC(), real, fake)
    expected = 1 - np.prod([(1500 - i) / (3000 - 1 - i) for i in range(1, 6)])  # eq. 8 of the paper, m = n, k = 5
    assert abs(score["coverage"].value - expected) < 4 * score["coverage"].error < 0.06
    assert abs(score["density"].value - 1) < 4 * score["density"].error < 0.2


def test_errors_are_of_halves_with_their_own_radii():
    real, fake = normal("x", 60, 2), normal("y", 60, 2) + 0.5
    sides = assign_sides(torch.arange(60))
    halves = []
    for column in range(1, SPLITS + 1):
        kept = sides[:, column], ~sides[:, column]
        halves.append([by_prdc(real[one], fake[one], 3, "<") for one in kept])
    for name, score in scored(PRDC(**one_rule(3, "<")), real, fake).items():
        assert score.error == pytest.approx(estimate_error([(a[name], b[name]) for a, b in halves]), rel=1e-9)


def test_halves_too_small_for_a_radius_give_no_error():
    scores = scored(PRDC(), normal("x", 9, 2), normal("y", 9, 2))
    assert all(score.error is None for score in scores.values())


def of_counts(score, real, fake):
    return lambda: score(real=normal("x", real, 2), fake=normal("y", fake, 2))


test_refusals_say_what_was_expected_and_got = refusals(
    (of_counts(partial(scored, PrecisionRecall()), 9, 8), "PrecisionRecall expects as many .* got 9 real and 8 fake"),
    (of_counts(PRDC().compute, 9, 8), "PRDC expects as many .* got 9 real and 8 fake"),
    (of_counts(partial(scored, DensityCoverage()), 5, 5), "DensityCoverage .* at least 6 samples of 'real', got 5"),
    (of_counts(PRDC().compute, 3, 3), "at least 6 samples of 'real', got 3"),
    (lambda: PrecisionRecall(k=0), "PrecisionRecall expects k to be at least 1, got 0"),
    (lambda: PRDC(coverage_k=0), "PRDC expects coverage_k to be at least 1, got 0"),
    (lambda: PRDC(coverage_comparison=">"), "PRDC expects coverage_comparison to be '<=' or '<', got '>'"),
)
