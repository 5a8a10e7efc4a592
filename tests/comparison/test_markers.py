"""Markers that are moved apart."""

import itertools

import numpy as np
import pytest

from modkit.comparison.markers import spread


@pytest.mark.parametrize("places", [[(3.0, 4.0)] * 12, [(n * 0.3, 0.0) for n in range(12)], [(0.0, 0.0), (7.9, 0.0)]])
def test_no_two_are_closer_than_the_gap(places):
    moved = spread(places, gap=8.0)
    assert min(np.hypot(*(a - b)) for a, b in itertools.combinations(moved, 2)) > 7.9
    assert abs(moved - places).max() < 24  # and none is far away
    np.testing.assert_array_equal(spread(places, gap=8.0), moved)


def test_what_nothing_is_near_stays():
    far = [(0.0, 0.0), (100.0, 0.0), (0.0, 8.0)]
    np.testing.assert_array_equal(spread(far, gap=8.0), far)
    assert spread([], gap=8.0).shape == (0, 2)
    np.testing.assert_array_equal(spread([*far, (0.5, 0.0)], gap=4.0)[1:3], far[1:])
