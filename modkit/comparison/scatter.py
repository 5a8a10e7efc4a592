"""Scatter plots of two axes of the trilemma with error bars and the Pareto front; right and up is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from modkit.comparison.figures import (
    GREY,
    WIDTH,
    add_legend,
    choose_style,
    embed_svg,
    format_ticks,
    make_printable,
    open_figure,
)
from modkit.comparison.trilemma import Axis, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_scatters"]


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
    with open_figure(WIDTH * len(pairs) / 3, 3.5) as figure:
        for panel, (x, y), front in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, fronts):
            shown = [point for point in points if {x.role, y.role} <= point.values.keys()]
            _draw_scatter(panel, x, y, shown, front, floor)
        shown = [point for point in points if any({x.role, y.role} <= point.values.keys() for x, y in pairs)]
        styles = [choose_style(point.number)._replace(line="none") for point in shown]
        add_legend(figure, [(make_printable(point.label), style) for point, style in zip(shown, styles)])
        return embed_svg(figure)


def _draw_scatter(
    axes: Axes, x: Axis, y: Axis, points: Sequence[Point], front: Sequence[str], floor: Mapping[str, float]
) -> None:
    for point in points:
        _draw_point(axes, x, y, point)
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
    axes.set_xlabel(_describe(x))
    axes.set_ylabel(_describe(y))
    _draw_front(axes, [(point.values[x.role], point.values[y.role]) for point in points if point.label in front], x)


def _draw_point(axes: Axes, x: Axis, y: Axis, point: Point) -> None:
    """Draws a point with its error bars, and its training seeds as dots."""
    color, marker, _ = choose_style(point.number)
    for seed in point.seeds:
        axes.plot(seed[x.role], seed[y.role], marker, color=color, markersize=2.5, alpha=0.55)
    axes.errorbar(
        point.values[x.role],
        point.values[y.role],
        xerr=point.errors[x.role],
        yerr=point.errors[y.role],
        fmt=marker,
        color=color,
        markerfacecolor=color if {x.role, y.role} <= point.ranked else "white",
        markersize=6.5,
        elinewidth=1.0,
        capsize=2.5,
        zorder=3,
    )


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]], x: Axis) -> None:
    """Draws the border of the dominated region: along each point's height up to it, then down to the next."""
    if not points:
        return
    ordered = sorted(points, reverse=x.better == "lower")
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    path = [(left, ordered[0][1]), *ordered, (ordered[-1][0], bottom)]
    across, up = zip(*path)
    axes.plot(across, up, drawstyle="steps-pre", color="#222222", linewidth=1.1, zorder=2)
    axes.set(xlim=(left, right), ylim=axes.get_ylim())


def _describe(axis: Axis) -> str:
    score = make_printable(axis.score)
    title = score if score.startswith(axis.role) else f"{axis.role}: {score}"
    return f"{title}\n{axis.better} is better{', log scale' if axis.log else ''} →"
