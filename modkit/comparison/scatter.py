"""Scatter plots of two axes of the trilemma with error bars and the Pareto front; right and up is better.

Markers never cover one another: where points nearly coincide, their markers stand around them, each with a line to its
point. A pair of axes on which no system has both values says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modkit.comparison.figures import WIDTH, add_legend, embed_svg, explain_empty, open_figure
from modkit.comparison.labels import make_printable, shorten_labels
from modkit.comparison.markers import spread
from modkit.comparison.theme import GREY, INK, PAPER, choose_style
from modkit.comparison.ticks import format_ticks, thin_ticks
from modkit.comparison.trilemma import Axis, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_scatters"]

_SIZE, _GAP = 6.5, 8.0  # points: of a marker, and from one to the next


def draw_scatters(
    pairs: Sequence[tuple[Axis, Axis]],
    points: Sequence[Point],
    fronts: Sequence[Sequence[str]],
    floor: Mapping[str, float],
) -> str:
    """Draws a scatter plot of each pair of axes, with error bars and the Pareto front; right and up is better.

    A pair is the horizontal and the vertical axis; points that are not ranked on both are drawn hollow. `fronts` has
    the labels on the front of each pair, `floor` the scores of held-out images by role.

    Raises:
        ValueError: If there is no pair, or not one front for each pair.
    """
    if not pairs or len(pairs) != len(fronts):
        raise ValueError(f"draw_scatters expects one front for each pair, got {len(pairs)} pairs, {len(fronts)} fronts")
    with open_figure(WIDTH, 3.5) as figure:
        panels = figure.subplots(1, max(3, len(pairs)), squeeze=False)[0]
        for panel, (x, y), front in zip(panels, pairs, fronts):
            _draw_scatter(panel, x, y, _select(points, x, y), front, floor)
        for panel in panels[len(pairs) :]:
            panel.remove()
        shown = [point for point in points if any(point in _select(points, x, y) for x, y in pairs)]
        styles = [choose_style(point.number)._replace(line="none") for point in shown]
        add_legend(figure, [*zip(shorten_labels([point.label for point in shown]), styles)])
        thin_ticks(figure)
        for panel, (x, y) in zip(panels, pairs):
            _draw_markers(panel, x, y, _select(points, x, y))
        return embed_svg(figure)


def _select(points: Sequence[Point], x: Axis, y: Axis) -> list[Point]:
    """Selects the points that have a value on both axes."""
    return [point for point in points if {x.role, y.role} <= point.values.keys()]


def _draw_scatter(
    axes: Axes, x: Axis, y: Axis, points: Sequence[Point], front: Sequence[str], floor: Mapping[str, float]
) -> None:
    """Draws all of a panel but the markers, whose places depend on its size."""
    axes.set_xlabel(_describe(x))
    axes.set_ylabel(_describe(y))
    if not points:
        explain_empty(axes, f"no system has both\n{x.role} and {y.role}")
        return
    for point in points:
        _draw_bars(axes, x, y, point)
    for axis, set_scale, line in ((x, axes.set_xscale, axes.axvline), (y, axes.set_yscale, axes.axhline)):
        if axis.log and all(point.values[axis.role] > 0 for point in points):
            set_scale("log")
        if axis.role in floor:
            line(floor[axis.role], color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
    axes.margins(0.1)
    axes.autoscale_view()
    for axis, limits, set_limits in ((x, axes.get_xlim(), axes.set_xlim), (y, axes.get_ylim(), axes.set_ylim)):
        set_limits(limits[::-1] if axis.better == "lower" else limits)
    format_ticks(axes)
    axes.grid(True)
    axes.set_axisbelow(True)
    _draw_front(axes, [(point.values[x.role], point.values[y.role]) for point in points if point.label in front], x)


def _draw_bars(axes: Axes, x: Axis, y: Axis, point: Point) -> None:
    """Draws the error bars of a point, and its training seeds as dots."""
    color, marker, _ = choose_style(point.number)
    for seed in point.seeds:
        axes.plot(seed[x.role], seed[y.role], marker, color=color, markersize=2.5, alpha=0.55)
    axes.errorbar(
        point.values[x.role],
        point.values[y.role],
        xerr=point.errors[x.role],
        yerr=point.errors[y.role],
        fmt="none",
        ecolor=color,
        elinewidth=1.0,
        capsize=2.5,
        zorder=3,
    )


def _draw_markers(axes: Axes, x: Axis, y: Axis, points: Sequence[Point]) -> None:
    """Draws the markers of points; one that would cover another stands beside its point, with a line to it."""
    from matplotlib.transforms import ScaledTranslation

    if not points:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    true = axes.transData.transform([(point.values[x.role], point.values[y.role]) for point in points])
    inches = (spread(true.tolist(), _GAP * figure.dpi / 72) - true) / figure.dpi
    limits = axes.get_xlim(), axes.get_ylim()
    for point, (right, up) in zip(points, inches):
        color, marker, _ = choose_style(point.number)
        place = point.values[x.role], point.values[y.role]
        moved = axes.transData + ScaledTranslation(right, up, figure.dpi_scale_trans)
        face = color if {x.role, y.role} <= point.ranked else PAPER
        axes.plot(*place, marker, color=color, markerfacecolor=face, markersize=_SIZE, transform=moved, zorder=4)
        if max(abs(right), abs(up)) * 72 > 1:
            look = {"arrowstyle": "-", "color": color, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
            offset = (right * 72, up * 72)
            axes.annotate("", xy=place, xytext=offset, textcoords="offset points", arrowprops=look, zorder=3)
    axes.set(xlim=limits[0], ylim=limits[1])


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]], x: Axis) -> None:
    """Draws the border of the dominated region: along each point's height up to it, then down to the next."""
    if not points:
        return
    ordered = sorted(points, reverse=x.better == "lower")
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    path = [(left, ordered[0][1]), *ordered, (ordered[-1][0], bottom)]
    across, up = zip(*path)
    axes.plot(across, up, drawstyle="steps-pre", color=INK, linewidth=1.1, zorder=2)
    axes.set(xlim=(left, right), ylim=axes.get_ylim())


def _describe(axis: Axis) -> str:
    score = make_printable(axis.score)
    title = score if score.startswith(axis.role) else f"{axis.role}: {score}"
    return f"{title}\n{axis.better} is better{', log scale' if axis.log else ''} →"
