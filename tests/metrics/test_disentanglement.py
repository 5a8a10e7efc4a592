"""Disentanglement: ceilings on the factors, a fall under a rotation, and formulas by brute force on the same codes."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from modkit.metrics.disentanglement import Disentanglement
from modkit.metrics.factor_scores import (
    _draw_pairs,
    _draw_votes,
    count_pairs,
    fit_importance,
    measure_completeness,
    measure_mig,
    measure_modularity,
    score_differences,
    score_variances,
)
from modkit.rng import Rng
from modkit.types import Score
from tests.refusals import refusals

SIZES = (3, 4, 5, 6)
GRID = torch.cartesian_prod(*(torch.arange(size) for size in SIZES))
SHARES = ("MIG", "DCI disentanglement", "DCI completeness", "FactorVAE score", "β-VAE score")


def standardize(x):
    x = x.double()
    return (x - x.mean(0)) / x.std(0)


def rotate(x, seed=0):
    rotation = torch.linalg.qr(torch.randn(x.shape[1], x.shape[1], generator=torch.Generator().manual_seed(seed)))[0]
    return x @ rotation.double()


def score(codes, factors=GRID, **options):
    metric = Disentanglement(**{"votes": 600, "draws": 16, **options})
    return metric.compute(real={"latents": codes.float(), "factors": factors})


def draw_codes(num=500, seed=0):
    """Noisy codes of random factors, always mixed in the same way."""
    rng = torch.Generator().manual_seed(seed)
    factors = torch.stack([torch.randint(size, (num,), generator=rng) for size in SIZES], 1)
    noise = torch.randn(num, 6, generator=rng, dtype=torch.float64)
    mix = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return standardize(factors) @ mix + 0.5 * noise, factors


@pytest.fixture(scope="module")
def ceiling():
    return score(standardize(GRID))


@pytest.mark.parametrize("name", SHARES)
def test_the_factors_themselves_have_the_highest_score(ceiling, name):
    assert ceiling[name].value == pytest.approx(1.0, abs=0 if name == "FactorVAE score" else 0.02)
    assert isinstance(ceiling[name], Score) and ceiling[name].better == "higher"


@pytest.mark.wide(2)
@pytest.mark.parametrize("name", SHARES)
def test_a_rotation_lowers_the_score(ceiling, name):
    rotated = score(rotate(standardize(GRID)))[name].value
    assert rotated < ceiling[name].value - 0.1


def test_the_factors_are_predicted_from_themselves(ceiling):
    assert ceiling["DCI informativeness"].value > 0.75
    noise = torch.randn(len(GRID), 4, generator=torch.Generator().manual_seed(1))
    assert score(noise)["DCI informativeness"].value < 0.4


def test_mig_is_the_gap_of_mutual_informations_counted_one_by_one():
    codes, factors = draw_codes()
    gaps = []
    for k in range(4):
        values = factors[:, k].tolist()
        total = len(values)
        known = []
        for d in range(6):
            edges = np.histogram(codes[:, d].numpy(), 20)[1]
            bins = np.digitize(codes[:, d].numpy(), edges[:-1]).tolist()
            joint, one, other = Counter(zip(bins, values)), Counter(bins), Counter(values)
            known.append(sum(n / total * math.log(n * total / (one[b] * other[v])) for (b, v), n in joint.items()))
        entropy = -sum(n / total * math.log(n / total) for n in Counter(values).values())
        known.sort()
        gaps.append((known[-1] - known[-2]) / entropy)
    expected = sum(gaps) / 4
    counts = count_pairs(codes, factors, bins=20, groups=torch.zeros(500, dtype=torch.int64), num=1)
    assert measure_mig([one[0] for one in counts]) == pytest.approx(expected, rel=1e-12)
    assert score(codes, factors)["MIG"].value == pytest.approx(expected, rel=1e-6)


@pytest.mark.wide
def test_the_error_of_mig_is_its_deviation_over_samples():
    scores = [score(*draw_codes(500, seed), votes=30, trees=1)["MIG"] for seed in range(12)]
    values = torch.tensor([one.value for one in scores])
    mean = sum(one.error for one in scores) / len(scores)
    assert 0.5 < mean / float(values.std()) < 2  # the deviation of 12 is known to a quarter


def test_the_error_of_mig_is_unknown_where_a_factor_varies_in_one_group_only():
    """The fault: it was NaN, so that no score of the evaluation could be saved."""
    codes = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    rare = torch.stack([torch.arange(400) % 4, (torch.arange(400) == 7).long()], 1)
    found = score(codes, rare)["MIG"]
    assert found.error is None and math.isfinite(found.value)


def test_dci_is_the_entropies_of_importances():
    importance = torch.rand(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    importance[5] = 0
    matrix = importance.tolist()

    def entropy(row, base):
        total = sum(row)
        return -sum(one / total * math.log(one / total, base) for one in row if one)

    whole = sum(map(sum, matrix))
    expected = sum(sum(row) / whole * (1 - entropy(row, 4)) for row in matrix[:5])
    assert measure_modularity(importance) == pytest.approx(expected, rel=1e-12)
    columns = list(zip(*matrix, strict=True))
    expected = sum(sum(one) / whole * (1 - entropy(one, 6)) for one in columns)
    assert measure_completeness(importance) == pytest.approx(expected, rel=1e-12)


def test_importances_are_those_of_the_dimensions_that_hold_the_factors():
    codes = torch.cat([standardize(GRID), torch.randn(len(GRID), 2, generator=torch.Generator().manual_seed(0))], 1)
    matrix = fit_importance(codes, GRID, torch.arange(len(GRID)) % 7 == 0, trees=5, seed=0).matrix
    assert matrix.argmax(0).tolist() == [0, 1, 2, 3] and float(matrix.diag().min()) > 0.8
    assert torch.allclose(matrix.sum(0), torch.ones(4, dtype=torch.float64))


def test_votes_share_the_value_of_their_factor_and_nothing_else():
    _, factors = draw_codes()
    chosen, members = _draw_votes(factors, Rng(0), 4000, 8)
    values = factors[members]
    for k, size in enumerate(SIZES):
        rows = values[chosen == k]
        assert bool((rows[:, :, k] == rows[:, :1, k]).all())
        other = rows[:, 0, (k + 1) % 4].bincount().double() / len(rows)
        expected = factors[:, (k + 1) % 4].bincount().double() / len(factors)
        assert (other - expected).abs().max() < 5 * math.sqrt(0.25 / len(rows)) + 0.06
        held = rows[:, 0, k].bincount(minlength=size).double() / len(rows)
        assert (held - factors[:, k].bincount() / len(factors)).abs().max() < 5 * math.sqrt(0.25 / len(rows))


@pytest.mark.wide
def test_the_factor_vae_score_is_a_majority_vote_counted_one_by_one():
    codes, factors = draw_codes()
    chosen, members = _draw_votes(factors, Rng(3), 900, 8)
    points = []
    for k, rows in zip(chosen.tolist(), members.tolist()):
        ratios = [np.var(codes[rows, d].numpy(), ddof=1) / np.var(codes[:, d].numpy(), ddof=1) for d in range(6)]
        points.append((int(np.argmin(ratios)), k))
    table = Counter(points[:600])
    guess = {d: max(range(4), key=lambda k: (table[d, k], -k)) for d in range(6)}
    expected = sum(guess[d] == k for d, k in points[600:]) / 300
    assert score_variances(codes, factors, Rng(3), votes=900, draws=8) == pytest.approx(expected, abs=1e-12)


def test_each_pair_of_the_beta_vae_score_has_a_value_of_its_own():
    """As in Higgins et al., section 3: both of a pair are alike in the factor, and pairs differ in it."""
    _, factors = draw_codes()
    chosen, left, right = _draw_pairs(factors, Rng(0), 2000, 8)
    for k in range(4):
        one, other = (factors[each[chosen == k]][:, :, k] for each in (left, right))
        assert torch.equal(one, other)
        held = one[:, 1].bincount(minlength=SIZES[k]).double() / len(one)
        shares = factors[:, k].bincount() / len(factors)
        assert (held - shares).abs().max() < 5 * math.sqrt(0.25 / len(one))
        together = float((one[:, 0] == one[:, 1]).double().mean())
        assert abs(together - float((shares**2).sum())) < 5 * math.sqrt(0.25 / len(one))


def test_the_beta_vae_score_is_of_mean_absolute_differences():
    from sklearn.linear_model import LogisticRegression

    codes, factors = draw_codes()
    chosen, left, right = _draw_pairs(factors, Rng(3), 900, 8)
    x = np.stack([
        np.mean([np.abs(codes[a].numpy() - codes[b].numpy()) for a, b in zip(*pairs, strict=True)], 0)
        for pairs in zip(left.tolist(), right.tolist(), strict=True)
    ])  # fmt: skip
    fit = LogisticRegression(max_iter=1000).fit(x[:600], chosen[:600].numpy())
    expected = fit.score(x[600:], chosen[600:].numpy())
    assert score_differences(codes, factors, Rng(3), votes=900, draws=8) == pytest.approx(expected, abs=0.004)


def test_collapsed_dimensions_are_left_out():
    codes = torch.cat([standardize(GRID), 1e-3 * torch.randn(len(GRID), 3)], 1)
    found, expected = score(codes), score(standardize(GRID))
    assert {name: one.value for name, one in found.items()} == {name: one.value for name, one in expected.items()}
    assert found["MIG"].details == {"dimensions": 7, "not collapsed": 4}
    none = score(torch.zeros(len(GRID), 2))
    assert {one.value for one in none.values()} == {0.0}
    assert "all dimensions of the latent have collapsed" in none["MIG"].warnings[0]
    assert score(standardize(GRID)[:, :1])["FactorVAE score"].value < 0.6  # of one dimension


@pytest.mark.wide
def test_few_samples_are_warned_of():
    assert not score(*draw_codes(150))["MIG"].warnings
    (warning,) = score(*draw_codes(149))["MIG"].warnings
    assert warning == "149 samples are few for a factor of 6 values: scores depend on their number"


def test_factors_that_do_not_vary_are_left_out():
    rows = GRID[GRID[:, 1] == 2]
    assert score(standardize(rows[:, [0, 2, 3]]), rows)["MIG"].value == pytest.approx(1.0, abs=1e-9)


test_refuses = refusals(
    (lambda: Disentanglement(votes=29), "Disentanglement expects votes to be at least 30, got 29"),
    (lambda: score(torch.randn(9, 2), torch.zeros(9, 2).long()), "2 factors that vary, got 9 samples and 0 factors"),
)
