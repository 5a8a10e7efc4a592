"""Markers of a scatter plot, moved apart where one would hide another.

Markers that are closer than `gap` leave their point in directions of their own, then push each other away, half of what
is missing each, until none is too close.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["spread"]

_ROUNDS = 500
_GOLDEN = math.pi * (3 - math.sqrt(5))  # the golden angle: no two multiples agree


def spread(places: Sequence[tuple[float, float]], gap: float) -> NDArray[np.float64]:
    """Moves places apart until each two are at least `gap` from each other; the others stay where they are.

    Args:
        places: Coordinates, all in one unit.
        gap: The smallest distance, in the same unit.

    Returns:
        The moved coordinates, `n 2`.

    Examples:
        >>> a, b, far = spread([(0.0, 0.0), (0.0, 0.0), (9.0, 0.0)], gap=4.0)
        >>> round(math.dist(a, b), 3), far.tolist()
        (4.0, [9.0, 0.0])
    """
    moved = np.array(places, dtype=np.float64).reshape(-1, 2)
    crowded = [n for n, one in enumerate(moved) if np.sum(np.hypot(*(moved - one).T) < gap) > 1]
    for n in crowded:  # out of a line or a single point, in which they could only push each other along
        moved[n] += gap / 8 * np.array([math.cos(n * _GOLDEN), math.sin(n * _GOLDEN)])
    for _ in range(_ROUNDS if crowded else 0):
        still = True
        for a, b in itertools.combinations(range(len(moved)), 2):
            way = moved[b] - moved[a]
            distance = math.hypot(*way)
            if distance < gap * (1 - 1e-6):
                push = way * (gap / distance - 1) / 2
                moved[a] -= push
                moved[b] += push
                still = False
        if still:
            break
    return moved
