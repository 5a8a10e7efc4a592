import numpy as np
import pytest
import torch

from modkit.metrics.frechet import frechet_distance
from modkit.metrics.frechet_infinity import FrechetInfinity
from modkit.rng import Rng
from tests.metrics.streams import normal, streamed
from tests.refusals import refusals


def scored(x, y, *, seed=0, order=None, split=1000, **settings):
    metric = FrechetInfinity(**settings)
    return streamed(metric, "features", {"real": x, "fake": y}, seed=seed, order=order, split=split)["FD∞"]


def test_it_is_the_intercept_over_random_subsets():
    x, y = normal("x", 90, 3), normal("y", 100, 3) + 1
    score = scored(x, y, seed=4)
    sizes = np.linspace(50, 100, 15).round().astype(int)
    order = Rng(4).uniform("fake", torch.empty(1, 100))[0].argsort()
    values = [frechet_distance(x, y[order[:size]]) for size in sizes]
    assert score.value == pytest.approx(np.polyfit(1 / sizes, values, 1)[1], rel=1e-9)
    assert score.settings == {"sizes": sizes.tolist(), "of": "fake"} and score.counts == {"real": 90, "fake": 100}
    assert scored(x, y, lowest=20).settings["sizes"][0] == 20
    assert score.error > 0 and scored(x, y, seed=1).value != scored(x, y, seed=0).value


@pytest.mark.wide
def test_it_is_unbiased_where_both_sets_are_made_smaller_and_its_error_is_the_spread():
    n, d, runs = 160, 3, 30
    pairs = [(normal(f"x{i}", n, d), normal(f"y{i}", n, d) * 1.2) for i in range(runs)]
    truth = d * 0.2**2
    plain = [frechet_distance(x, y) for x, y in pairs]
    scores = [scored(x, y, seed=i, of="both", num_sizes=4, lowest=60) for i, (x, y) in enumerate(pairs)]
    values = np.array([score.value for score in scores])
    spread = values.std(ddof=1)
    assert abs(values.mean() - truth) < 3 * spread / runs**0.5
    assert np.mean(plain) - truth > 3 * np.std(plain) / runs**0.5
    assert np.sqrt(np.mean([score.error**2 for score in scores])) == pytest.approx(spread, rel=0.4)


def test_subsets_too_small_for_a_covariance_are_warned_of():
    assert "start at 20 samples of 30 features" in scored(normal("x", 40, 30), normal("y", 40, 30)).warnings[0]


test_refusals_say_what_was_expected_and_got = refusals(
    (lambda: FrechetInfinity(num_sizes=1), "FrechetInfinity expects num_sizes to be at least 2, got 1"),
    (lambda: FrechetInfinity(of="real"), "'fake' or 'both', got 'real'"),
    (lambda: scored(normal("x", 40, 2), normal("y", 4, 2)), "at least 8 samples of 'fake', got 4"),
)
