"""Radars: a triangle for each system, with quality, coverage and speed at its corners, better outwards.

    share = 1/6 + 5/6 (v - worst) / (best - worst)

over the systems and, where there is one, the floor, which is marked across its axis; of speeds the logarithm is taken.
A bar along an axis reaches a standard error to either side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modkit.comparison.figures import GREY, WIDTH, drawing, plain, short, style, svg_uri
from modkit.comparison.trilemma import Axis, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["radars"]

_TITLE = 26  # letters that fit above a triangle


def radars(axes: Sequence[Axis], points: Sequence[Point], floor: Mapping[str, float]) -> str:
    """A triangle for each point, better outwards; the worst of each axis at a sixth, the best, or the floor, outermost.

    Args:
        axes: Three axes.
        points: Points that have all three values.
        floor: What held-out images score, by role.

    Raises:
        ValueError: If there are not three axes or no points.
    """
    if len(axes) != 3 or not points:
        raise ValueError(f"radars expects three axes and points, got {len(axes)} and {len(points)}")
    columns = min(4, len(points))
    height = -(-len(points) // columns)
    with drawing(WIDTH * columns / 4, 2.35 * height) as figure:
        scales = {axis.role: _Scale(axis, points, floor.get(axis.role)) for axis in axes}
        for number, point in enumerate(points):
            _radar(figure.add_subplot(height, columns, number + 1), axes, point, scales, floor)
        return svg_uri(figure)


class _Scale:
    """Maps values of an axis to [1/6, 1], the worst that is ranked and worse ones to 1/6."""

    def __init__(self, axis: Axis, points: Sequence[Point], floor: float | None) -> None:
        values = [p.values[axis.role] for p in points if axis.role in p.ranked] or [p.values[axis.role] for p in points]
        self._log = axis.log and min(values) > 0
        known = [self._at(value) for value in (*values, *(() if floor is None else (floor,)))]
        self._worst, self._best = (max(known), min(known)) if axis.better == "lower" else (min(known), max(known))

    def __call__(self, value: float) -> float:
        if self._worst == self._best:
            return 1.0
        return 1 / 6 + 5 / 6 * min(max((self._at(value) - self._worst) / (self._best - self._worst), 0.0), 1.0)

    def _at(self, value: float) -> float:
        if not self._log:
            return value
        return math.log(value) if value > 0 else -math.inf


def _radar(
    axes: Axes, given: Sequence[Axis], point: Point, scales: Mapping[str, _Scale], floor: Mapping[str, float]
) -> None:
    angles = [math.pi / 2 + 2 * math.pi * number / 3 for number in range(3)]
    corners = [(math.cos(angle), math.sin(angle)) for angle in angles]
    for share in (1 / 3, 2 / 3, 1.0):
        _polygon(axes, [(share * x, share * y) for x, y in corners], color="#cccccc", linewidth=0.6)
    for x, y in corners:
        axes.plot([0, x], [0, y], color="#cccccc", linewidth=0.6)
    for axis, (x, y) in zip(given, corners):
        if axis.role in floor:
            share = scales[axis.role](floor[axis.role])
            across = 0.09
            ends = [(share * x - across * y, share * y + across * x), (share * x + across * y, share * y - across * x)]
            axes.plot(*zip(*ends), color=GREY, linewidth=1.6)
    for axis, corner in zip(given, corners):
        _error_bar(axes, scales[axis.role], point.values[axis.role], point.errors.get(axis.role), corner)
    shares = [scales[axis.role](point.values[axis.role]) for axis in given]
    shape = [(share * x, share * y) for share, (x, y) in zip(shares, corners)]
    ranked = all(axis.role in point.ranked for axis in given)
    color = style(point.number).color if ranked else GREY
    axes.fill(*zip(*shape), color=color, alpha=0.18, linewidth=0)
    _polygon(axes, shape, color=color, linewidth=1.6, linestyle=style(point.number).line)
    axes.plot(
        *zip(*shape),
        style(point.number).marker,
        color=color,
        markersize=5,
        markerfacecolor=color if ranked else "white",
    )
    places = ((0, 1.1, "center", "bottom"), (-0.98, -0.62, "center", "top"), (0.98, -0.62, "center", "top"))
    for axis, (x, y, side, up) in zip(given, places):
        text = f"{axis.role}\n{short(point.values[axis.role])}"
        axes.text(x, y, text, ha=side, va=up, fontsize=7.5, linespacing=1.15)
    title = plain(point.label, _TITLE) + ("" if ranked else "\nnot ranked")
    axes.set_title(title, fontsize=9, fontweight="bold", pad=4, linespacing=1.15)
    axes.set(xlim=(-1.5, 1.5), ylim=(-0.98, 1.45), aspect="equal")
    axes.set_axis_off()


def _error_bar(axes: Axes, scale: _Scale, value: float, error: float | None, corner: tuple[float, float]) -> None:
    """A bar from a standard error below a value to one above it, with its ends marked."""
    if not error:
        return
    (x, y), cap = corner, 0.035
    ends = [scale(value - error), scale(value + error)]
    axes.plot([end * x for end in ends], [end * y for end in ends], color="#222222", linewidth=1.0, zorder=3)
    for end in ends:
        across = [(end * x - cap * y, end * y + cap * x), (end * x + cap * y, end * y - cap * x)]
        axes.plot(*zip(*across), color="#222222", linewidth=1.0, zorder=3)


def _polygon(axes: Axes, corners: Sequence[tuple[float, float]], **how: Any) -> None:
    axes.plot(*zip(*(*corners, corners[0])), **how)
