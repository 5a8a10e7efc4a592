"""Radar plots: one for each system, with quality, coverage and speed on its axes; outwards is better.

    share = 1/6 + 5/6 (v - worst) / (best - worst)

`worst` and `best` are taken over the values of the ranked systems, the ends of their bars, and the floor, if there is
one. The floor is marked across its axis. Speeds are compared by their logarithm. A bar along an axis reaches one
standard error to either side; under a logarithm, one that would reach to zero or below reaches to the axis' end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from modkit.comparison.figures import WIDTH, embed_svg, open_figure
from modkit.comparison.labels import shorten_labels
from modkit.comparison.theme import GREY, INK, PAPER, choose_style
from modkit.comparison.ticks import format_short
from modkit.comparison.trilemma import Axis, Point

__all__ = ["draw_radars"]

_TITLE = 25  # letters that fit above a plot
_COLUMNS = 4
_DEGREES = (90, 210, 330)


def draw_radars(axes: Sequence[Axis], points: Sequence[Point], floor: Mapping[str, float]) -> str:
    """Draws a radar plot for each point; on each axis the worst lies at a sixth and the best outermost, bars included.

    Points must have all three values; `floor` has the scores of held-out images by role.

    Raises:
        ValueError: If there are not exactly three axes, or no points.
    """
    if len(axes) != 3 or not points:
        raise ValueError(f"draw_radars expects three axes and points, got {len(axes)} and {len(points)}")
    rows = -(-len(points) // _COLUMNS)
    scales = {axis.role: _Scale(axis, points, floor.get(axis.role)) for axis in axes}
    titles = shorten_labels([point.label for point in points], _TITLE)
    with open_figure(WIDTH, 2.6 * rows) as figure:
        figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)  # type: ignore[union-attr, call-arg]
        panels = figure.subplots(rows, _COLUMNS, squeeze=False, subplot_kw={"projection": "polar"}).flat
        for panel, point, title in zip(panels, points, titles):
            _draw_radar(panel, axes, point, title, scales, floor)
        for panel in panels[len(points) :]:
            panel.remove()
        return embed_svg(figure)


class _Scale:
    """Maps the values of an axis to [1/6, 1]; what lies beyond ranked systems, their bars and the floor is clamped."""

    def __init__(self, axis: Axis, points: Sequence[Point], floor: float | None) -> None:
        ranked = [point for point in points if axis.role in point.ranked] or points
        values = [point.values[axis.role] for point in ranked] + ([] if floor is None else [floor])
        ends = [end for point in ranked for end in _find_ends(point, axis)]
        self._log = axis.log and min(values) > 0
        known = [self._transform(value) for value in (*values, *ends) if value > 0 or not self._log]
        self._worst, self._best = (max(known), min(known)) if axis.better == "lower" else (min(known), max(known))

    def __call__(self, value: float) -> float:
        if self._worst == self._best:
            return 1.0
        return 1 / 6 + 5 / 6 * min(max((self._transform(value) - self._worst) / (self._best - self._worst), 0.0), 1.0)

    def _transform(self, value: float) -> float:
        if not self._log:
            return value
        return math.log(value) if value > 0 else -math.inf


def _find_ends(point: Point, axis: Axis) -> tuple[float, float]:
    """Finds the values at both ends of a point's bar, one standard error to either side."""
    value, error = point.values[axis.role], point.errors.get(axis.role) or 0.0
    return value - error, value + error


def _draw_radar(
    panel: Any, axes: Sequence[Axis], point: Point, title: str, scales: Mapping[str, _Scale], floor: Mapping[str, float]
) -> None:
    ranked = all(axis.role in point.ranked for axis in axes)
    style = choose_style(point.number)
    color, face = (style.color, style.color) if ranked else (GREY, PAPER)
    shares = []
    for axis, degrees in zip(axes, _DEGREES):
        scale = scales[axis.role]
        angle, share = math.radians(degrees), scale(point.values[axis.role])
        shares.append(share)
        if axis.role in floor:
            panel.plot(angle, scale(floor[axis.role]), marker=(2, 2, degrees), markersize=11, color=GREY, clip_on=False)
        if point.errors.get(axis.role):
            inner, outer = sorted(map(scale, _find_ends(point, axis)))
            bar = [[share - inner], [outer - share]]
            panel.errorbar(angle, share, yerr=bar, ecolor=INK, capsize=2.5, zorder=3, clip_on=False)
    angles = [math.radians(degrees) for degrees in (*_DEGREES, _DEGREES[0])]
    shares.append(shares[0])
    panel.fill(angles, shares, color=color, alpha=0.18, linewidth=0)
    look = {"color": color, "linestyle": style.line, "marker": style.marker, "markerfacecolor": face, "markersize": 5}
    panel.plot(angles, shares, linewidth=1.6, clip_on=False, **look)
    texts = [f"{axis.role}\n{format_short(point.values[axis.role])}" for axis in axes]
    labels = panel.set_thetagrids(_DEGREES, texts, fontsize=7.5)[1]
    for label, side in zip(labels, ("center", "right", "left")):
        label.set_horizontalalignment(side)
    panel.set_rgrids([1 / 3, 2 / 3, 1], labels=[])
    panel.set_rlim(0, 1)
    panel.spines["polar"].set_visible(False)
    panel.set_title(title + ("" if ranked else "\nnot ranked"), fontsize=9, fontweight="bold", linespacing=1.15)
