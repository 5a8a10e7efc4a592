"""Ranks among comparable scores, means over seeds, and the Pareto front by its definition."""

import itertools

import numpy as np
import pytest

from modkit.comparison.ranking import Measured, average, find_dominators, rank
from modkit.types import Score
from tests.refusals import check_refusal

COUNTS = {"real": 100, "fake": 100}


def score(value, error=None, better="lower", counts=COUNTS, **settings):
    return Score(value, error, better, counts, settings=settings)


def ranked(**scores):
    return rank({label: Measured(one) for label, one in scores.items()})


def test_the_lowest_or_the_highest_is_best_and_equals_share_a_rank():
    assert ranked(a=score(3.0), b=score(1.0), c=score(2.0), d=score(2.0)).ranks == {"a": 4, "b": 1, "c": 2, "d": 2}
    upwards = ranked(a=score(3.0, better="higher"), b=score(1.0, better="higher"))
    assert upwards.ranks == {"a": 1, "b": 2} and upwards.best == ("a",)
    assert ranked(a=score(1.0, better=None), b=score(2.0, better=None)).ranks == {}


@pytest.mark.parametrize(("distance", "close"), [(0.99, ("b",)), (1.01, ())])
def test_close_is_within_two_standard_errors_of_the_distance(distance, close):
    # the distance of two independent scores has the error sqrt(.3^2 + .4^2) = .5
    assert ranked(a=score(1.0, 0.3), b=score(1.0 + distance, 0.4)).close == close
    assert ranked(a=score(1.0, 0.3), b=score(1.1)).close == ()


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        (score(0.1, counts={"real": 100, "fake": 50}), "number of fake is 50 instead of 100"),
        (score(0.1, counts={"fake": 100}), "number of real is none instead of 100"),
        (score(0.1, k=3), "k is 3 instead of none"),
        (score(0.1, comparison="<"), "comparison is < instead of none"),
    ],
)
def test_what_was_measured_otherwise_is_not_ranked(odd, reason):
    found = ranked(a=score(3.0), odd=odd, b=score(2.0))
    assert found.ranks == {"a": 2, "b": 1}
    assert found.unranked == {"odd": reason}


def test_other_data_are_not_ranked():
    on = {"a": Measured(score(1.0), "x"), "b": Measured(score(2.0), "x"), "c": Measured(score(0.1), "y")}
    assert rank(on).unranked == {"c": "it was measured on other data"} and rank(on).best == ("a",)


def test_nothing_is_ranked_where_no_set_is_the_largest():
    found = ranked(a=score(1.0), b=score(2.0, k=3), c=score(3.0), d=score(4.0, k=3))
    assert found.ranks == {} and set(found.unranked) == set("abcd")
    assert found.unranked["a"] == "k is none instead of 3" and found.unranked["d"] == "k is 3 instead of none"


def test_the_mean_over_seeds_has_the_standard_error_of_a_mean():
    values = [0.31, 0.29, 0.36, 0.33]
    mean = average([score(value, 0.5) for value in values])
    assert mean.value == pytest.approx(np.mean(values), rel=1e-14)
    assert mean.error == pytest.approx(np.std(values, ddof=1) / 2, rel=1e-13)
    assert mean.counts == COUNTS and mean.better == "lower"
    assert average([score(1.0), score(2.0, k=3)]) is None
    check_refusal("at least 2 seeds, got 1", average, [score(1.0)])


def test_the_front_by_its_definition():
    rng = np.random.default_rng(0)
    better = ("lower", "higher", "higher")
    points = {str(n): tuple(rng.integers(0, 5, 3).tolist()) for n in range(60)}
    found = find_dominators(points, better)
    signs = np.array([-1, 1, 1])
    for (a, mine), (b, theirs) in itertools.product(points.items(), repeat=2):
        difference = signs * (np.array(theirs) - np.array(mine))
        assert (b in found[a]) == (bool((difference >= 0).all()) and bool((difference > 0).any()))
    assert 0 < sum(not others for others in found.values()) < 60


def test_equal_points_do_not_dominate_each_other():
    assert find_dominators({"a": (1.0, 2.0), "b": (1.0, 2.0)}, ("lower", "higher")) == {"a": (), "b": ()}
    check_refusal("expects 2 coordinates, got 1 for 'a'", find_dominators, {"a": (1.0,)}, ("lower", "higher"))
