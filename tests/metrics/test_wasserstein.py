import math
from itertools import permutations

import numpy as np
import pytest
import scipy.stats
import torch

import modkit.metrics.wasserstein as module
from modkit.metrics.wasserstein import SlicedWasserstein, Wasserstein, sliced_wasserstein, wasserstein
from modkit.rng import Rng
from tests.metrics.streams import precise, streamed
from tests.refusals import check_refusal


def scored(metric, x, y, **how):
    (score,) = streamed(metric, "features", {"real": x, "fake": y}, **how).values()
    return score


def on_line(x, y):
    return scipy.stats.wasserstein_distance(x.numpy(), y.numpy())


@pytest.mark.parametrize("n, d", [(1, 2), (5, 1), (6, 3), (7, 2)])
def test_the_exact_distance_is_the_least_over_permutations(n, d):
    x, y = precise("x", n, d), 2 * precise("y", n, d) + 1
    costs = np.array([[math.dist(a, b) for b in y.tolist()] for a in x.tolist()])
    expected = min(costs[range(n), order].mean() for order in permutations(range(n)))
    assert wasserstein(real=x, fake=y) == pytest.approx(expected, rel=1e-13)


def test_both_are_scipys_on_a_line():
    x, y = precise("x", 60, 1), 3 * precise("y", 60, 1) + 1
    assert wasserstein(real=x, fake=y) == pytest.approx(on_line(x[:, 0], y[:, 0]), rel=1e-13)
    one = torch.ones(1, 1)
    for fake in (y, y[:23], x[:31]):  # of other counts, and with ties
        value = sliced_wasserstein(real=x, fake=fake, directions=one)
        assert value == pytest.approx(on_line(x[:, 0], fake[:, 0]), rel=1e-13)


@pytest.mark.parametrize("tile, rows", [(2**18, 4096), (1, 7)])
def test_the_sliced_distance_is_the_mean_over_projections(monkeypatch, tile, rows):
    monkeypatch.setattr(module, "_TILE", tile)
    monkeypatch.setattr(module, "_ROWS", rows)
    x, y, directions = precise("x", 40, 3), precise("y", 33, 3) + 1, precise("u", 9, 3)
    unit = directions / directions.norm(dim=1, keepdim=True)
    expected = np.mean([on_line(x @ u, y @ u) for u in unit])
    assert sliced_wasserstein(real=x, fake=y, directions=directions) == pytest.approx(expected, rel=1e-13)


def test_equal_sets_are_at_no_distance():
    x = precise("x", 50, 4) + 20
    assert wasserstein(real=x, fake=x.flip(0)) == 0
    assert sliced_wasserstein(real=x, fake=x.flip(0), directions=precise("u", 20, 4)) < 1e-14


@pytest.mark.parametrize("d", [2, 5])
def test_a_translation_costs_its_length(d):
    x, shift = precise("x", 200, d), torch.arange(1.0, d + 1, dtype=torch.float64)
    assert wasserstein(real=x, fake=x + shift) == pytest.approx(float(shift.norm()), rel=1e-12)
    turns = precise("u", 20_000, d)
    value = sliced_wasserstein(real=x[:2], fake=x[:2] + shift, directions=turns)
    # |u . shift| in the mean over the sphere; its spread over 20,000 directions is below .006 of it
    expected = float(shift.norm()) * math.gamma(d / 2) / (math.sqrt(math.pi) * math.gamma((d + 1) / 2))
    assert value == pytest.approx(expected, rel=0.024)


def test_normals_of_two_widths_have_their_closed_form():
    x, y = precise("x", 500, 1), 3 * precise("y", 500, 1)
    expected = 2 * math.sqrt(2 / math.pi)  # |s - 1| E|eps|
    for score in (scored(Wasserstein(), x, y), scored(SlicedWasserstein(num=3), x, y)):
        assert abs(score.value - expected) < 4 * score.error < 0.4 * expected


def test_the_directions_are_the_seeds_and_the_value_the_functions():
    x, y = precise("x", 50, 3).float(), (precise("y", 40, 3) + 1).float()
    score = scored(SlicedWasserstein(num=7), x, y, seed=5)
    directions = Rng(5).normal("directions", torch.empty(7, 3, dtype=torch.float64))
    assert score.value == pytest.approx(sliced_wasserstein(real=x, fake=y, directions=directions), rel=1e-13)
    assert score.settings == {"num": 7} and score.counts == {"real": 50, "fake": 40} and score.better == "lower"
    assert score.value != scored(SlicedWasserstein(num=7), x, y, seed=6).value


def test_leaving_a_group_out_is_leaving_its_samples_out():
    x, y, directions = precise("x", 30, 2), precise("y", 25, 2) + 1, precise("u", 4, 2)
    groups = [torch.arange(30) % 3, torch.arange(25) % 3]
    found = module._slice([x, y], groups, directions, num_groups=3)
    expected = [sliced_wasserstein(real=x, fake=y, directions=directions)]
    for group in range(3):
        expected.append(sliced_wasserstein(real=x[groups[0] != group], fake=y, directions=directions))
    for group in range(3):
        expected.append(sliced_wasserstein(real=x, fake=y[groups[1] != group], directions=directions))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-13, atol=0)


def test_refusals_say_what_was_expected_and_got():
    zeros = torch.zeros
    check_refusal("SlicedWasserstein expects num to be at least 1, got 0", SlicedWasserstein, num=0)
    message = r"wasserstein expects real .* got \(3, 2\) and \(3, 1\)"
    check_refusal(message, wasserstein, real=zeros(3, 2), fake=zeros(3, 1))
    with pytest.raises(ValueError, match=r"at least one of each, got \(0, 2\) and \(3, 2\)"):
        sliced_wasserstein(real=torch.zeros(0, 2), fake=torch.zeros(3, 2), directions=torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"directions of shape \(u, 2\), got shape \(1, 3\)"):
        sliced_wasserstein(real=torch.zeros(3, 2), fake=torch.zeros(3, 2), directions=torch.ones(1, 3))
    check_refusal("wasserstein expects finite values, got NaN", wasserstein, real=zeros(1, 1) / 0, fake=zeros(1, 1))
    check_refusal("at most 5000 samples of a set, got 5001", wasserstein, real=zeros(5001, 1), fake=zeros(5001, 1))
    with pytest.raises(ValueError, match="Wasserstein expects as many real as fake samples, got 5 real and 4 fake"):
        scored(Wasserstein(), torch.zeros(5, 2), torch.zeros(4, 2))
    check_refusal("Wasserstein expects at least 2 .* of 'fake', got 1", scored, Wasserstein(), zeros(5, 2), zeros(1, 2))
    with pytest.raises(ValueError, match="Wasserstein expects at most 5000 samples of a set, got 5001: take fewer"):
        Wasserstein().update({}, "real", {"features": torch.zeros(5001, 1)}, torch.arange(5001))
