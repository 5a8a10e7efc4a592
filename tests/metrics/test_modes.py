import math

import numpy as np
import pytest
import scipy.stats
import torch

import modkit.metrics.modes as modes
from modkit.data.mixture import Grid, Ring
from modkit.metrics.modes import ModeCoverage, compute_share_within, count_modes, mode_kl, symmetric_kl
from modkit.rng import Rng
from modkit.types import Modes
from tests.metrics.streams import draw_points, streamed
from tests.refusals import check_refusal

TRUTHS = {
    "ring": Ring(num=20_000).truth,
    "grid": Grid(num=20_000).truth,
    "space": Modes(torch.tensor([[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [0.0, 5.0, 0.0]]), 0.5),
}


def scored(points, truth, *, metric=None):
    return streamed(metric or ModeCoverage(), "points", {"fake": points}, truth=truth)


def by_loop(points, truth, radius):
    """Counts of the modes and of the outside, point by point."""
    counts = [0] * (len(truth.centers) + 1)
    for point in points.tolist():
        distances = [math.dist(point, center) for center in truth.centers.tolist()]
        nearest = min(range(len(distances)), key=distances.__getitem__)
        counts[nearest if distances[nearest] <= radius * truth.std else -1] += 1
    return counts


@pytest.mark.parametrize("tile", [2**22, 50])
@pytest.mark.parametrize("name", TRUTHS)
def test_counts_are_those_of_a_loop_over_points(monkeypatch, name, tile):
    monkeypatch.setattr(modes, "_TILE", tile)
    truth = TRUTHS[name]
    points = draw_points(truth, 300, scale=2.0)
    for radius in (1.0, 3.0):
        counts = count_modes(points=points, truth=truth, radius=radius).tolist()
        assert counts == by_loop(points, truth, radius) and 0 < counts[-1] < 300


def test_the_edge_of_a_mode_is_within_it():
    points = torch.tensor([[0.0, 1.5], [0.0, 1.5 + 1e-6], [-8.0, 0.0]])
    assert count_modes(points=points, truth=Modes(torch.zeros(1, 2), 0.5)).tolist() == [1, 2]


@pytest.mark.parametrize("dim", [1, 2, 3, 1200])
def test_the_ceiling_is_the_chi_square_distribution(dim):
    for radius in (0.5, 3.0, 35.0):
        expected = scipy.stats.chi2(dim).cdf(radius**2)
        assert compute_share_within(radius=radius, dim=dim) == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert compute_share_within(radius=3.0, dim=2) == pytest.approx(1 - math.exp(-4.5), rel=1e-14)


def test_kls_are_their_definitions():
    counts = torch.tensor([30, 10, 0, 60])
    assert mode_kl(counts=counts) == pytest.approx(scipy.stats.entropy([0.75, 0.25, 0], [1 / 3] * 3), rel=1e-12)
    p = (np.array([30, 30, 30, 10]) + 0.5) / 102
    q = (np.array([30, 10, 0, 60]) + 0.5) / 102
    expected = scipy.stats.entropy(p, q) + scipy.stats.entropy(q, p)
    assert symmetric_kl(counts=counts, inside=0.9) == pytest.approx(expected, rel=1e-12)


def test_kls_of_even_samples_are_zero_and_of_one_mode_log_k():
    assert mode_kl(counts=torch.tensor([7, 7, 7, 3])) == pytest.approx(0, abs=1e-15)
    assert mode_kl(counts=torch.tensor([0, 9, 0, 3])) == mode_kl(counts=torch.tensor([0, 0, 0, 3])) == math.log(3)
    assert symmetric_kl(counts=torch.tensor([30, 30, 30, 10]), inside=0.9) == pytest.approx(0, abs=1e-15)
    far = [symmetric_kl(counts=torch.tensor(counts), inside=0.9) for counts in ([90, 0, 0, 10], [0, 0, 0, 100])]
    assert 2 < far[0] < far[1] < 10


@pytest.mark.parametrize("data", [Ring(num=20_000), Grid(num=20_000)], ids=["ring", "grid"])
def test_a_perfect_sampler_reaches_the_ceiling(data):
    points = data.read("train", range(20_000), Rng(0)).tensor
    k, scores = len(data.centers), scored(points, data.truth)
    ceiling = 1 - math.exp(-4.5)
    assert abs(scores["high quality"].value - ceiling) < 3 * math.sqrt(ceiling * (1 - ceiling) / 20_000)
    assert scores["modes"].value == k and scores["high quality"].settings["ceiling"] == pytest.approx(ceiling)
    # 2 n KL is chi² of k - 1 degrees of freedom, n symmetric KL of k: mean and six standard deviations
    assert 2 * 20_000 * scores["mode KL"].value < k - 1 + 6 * math.sqrt(2 * (k - 1))
    assert 20_000 * scores["symmetric KL"].value < k + 6 * math.sqrt(2 * k)
    assert not any(score.warnings for score in scores.values())
    assert all(score.counts == {"fake": 20_000} for score in scores.values())


def test_lost_modes_and_blur_show_where_they_should():
    truth = TRUTHS["ring"]
    lost = scored(draw_points(truth, 4000, shares=[0.25] * 4 + [0.0] * 4), truth)
    assert lost["modes"].value == 4 and lost["mode KL"].value == pytest.approx(math.log(2), abs=0.005)
    assert abs(lost["high quality"].value - 0.98889) < 3 * lost["high quality"].error
    blurred = scored(draw_points(truth, 4000, scale=2.0), truth)
    assert blurred["modes"].value == 8 and blurred["mode KL"].value < 0.01
    assert abs(blurred["high quality"].value - (1 - math.exp(-(1.5**2) / 2))) < 3 * blurred["high quality"].error
    assert lost["symmetric KL"].value > 2 and 0.1 < blurred["symmetric KL"].value < 2


def test_a_mode_is_covered_by_at_least_so_many():
    truth = Modes(torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]), 1.0)
    points = torch.cat([truth.centers[[0] * 20 + [1] * 19], torch.full((5, 2), 30.0)])
    covered = {n: scored(points, truth, metric=ModeCoverage(least=n))["modes"].value for n in (1, 19, 20, 21)}
    assert covered == {1: 2, 19: 2, 20: 1, 21: 0}


def test_collapse_within_the_modes_is_told_from_chance():
    truth = TRUTHS["ring"]
    tight = scored(draw_points(truth, 2500, scale=0.5), truth)["high quality"]
    (warning,) = tight.warnings
    assert warning == "100.00% within 3 std of a mode is more than a perfect sampler's 98.89%: collapse"
    assert not scored(draw_points(truth, 300, scale=0.5), truth)["high quality"].warnings  # 1.8 standard errors
    false = sum(bool(scored(draw_points(truth, 2500, seed=seed), truth)["high quality"].warnings) for seed in range(30))
    assert false == 0
    assert not scored(torch.full((9, 2), 50.0), truth)["high quality"].warnings


def test_overlapping_modes_are_told_and_are_no_collapse():
    truth = Modes(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), 1.0)
    scores = scored(draw_points(truth, 20_000), truth)
    assert scores["high quality"].value > 1 - math.exp(-4.5) + 0.002  # a stray of one mode is within the other
    for score in scores.values():
        assert score.warnings == ("modes overlap: they are 2 std apart, their radius is 3",)
    for apart, told in ((5.9, 1), (6.1, 0)):
        truth = Modes(torch.tensor([[0.0, 0.0], [apart, 0.0], [0.0, 20.0]]), 1.0)
        assert len(scored(draw_points(truth, 100), truth)["modes"].warnings) == told


def test_no_sample_within_any_mode_is_the_worst():
    scores = scored(torch.full((300, 2), 50.0), TRUTHS["ring"])
    assert [scores[name].value for name in ("modes", "high quality", "mode KL")] == [0, 0, math.log(8)]
    assert scores["mode KL"].warnings == ("no sample is within a mode: the worst value is given",)
    assert scores["symmetric KL"].value > 5


def test_a_mode_that_hangs_on_few_samples_makes_the_count_uncertain():
    truth = Modes(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), 1.0)
    points = truth.centers[torch.tensor([0] * 199 + [1])]
    assert scored(points, truth)["modes"].error > 0.5 > 1e-9 > scored(points[:199], truth)["modes"].error


def test_refusals_say_what_was_expected_and_got():
    truth = TRUTHS["ring"]
    check_refusal(r"ModeCoverage expects radius to be above 0, got 0\.0", ModeCoverage, radius=0.0)
    check_refusal("ModeCoverage expects least to be at least 1, got 0", ModeCoverage, least=0)
    check_refusal(r"got \(5, 3\), \(8, 2\) and 0.14", count_modes, points=torch.zeros(5, 3), truth=truth)
    flat = Ring(std=0.0, num=1).truth
    check_refusal("a positive std, got .* and 0.0", count_modes, points=torch.zeros(5, 2), truth=flat)
    check_refusal("finite points, got NaN", scored, torch.tensor([[0.0, math.nan]]), truth)
    check_refusal("samples of 'fake', got none", ModeCoverage().result, {}, Rng(0))
    metric = ModeCoverage()
    one, other = (
        metric.update({}, "fake", {"points": torch.zeros(2, 2), "truth": each.truth}, torch.arange(2))
        for each in (Ring(num=1), Grid(num=1))
    )
    check_refusal(r"the same true modes, got centers \(8, 2\) of std .*, \(25, 2\)", metric.merge, one, other)
