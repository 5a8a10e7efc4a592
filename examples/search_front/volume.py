"""The hypervolume of a front of two objectives that are lower where they are better.

Both are taken as logarithms, and scaled to [0, 1] over all points that were measured. The volume is the share of the
unit square that is no better than some point found:

    V(S) = area of the union over s in S of [s_1, 1] x [s_2, 1]
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

__all__ = ["measure_volume", "scale"]


def scale(points: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """Scales the logarithms of positive points to [0, 1] in each coordinate.

    Raises:
        ValueError: If all are equal in a coordinate.
    """
    logs = [[math.log(value) for value in column] for column in zip(*points)]
    if any(min(column) == max(column) for column in logs):
        raise ValueError("scale expects points that differ in each coordinate")
    return list(zip(*([(value - min(column)) / (max(column) - min(column)) for value in column] for column in logs)))


def measure_volume(points: Collection[Sequence[float]]) -> float:
    """Measures the area that points in the unit square dominate.

    Examples:
        >>> measure_volume([(0.5, 0.5), (0.0, 0.75), (0.6, 0.6)])
        0.375
    """
    area, lowest = 0.0, 1.0
    for x, y in sorted((x, y) for x, y in points):
        if y < lowest:
            area += (1 - x) * (lowest - y)
            lowest = y
    return area
