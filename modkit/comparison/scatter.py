"""Scatters of two axes of the trilemma, better to the right and upwards, with error bars and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from modkit.comparison.figures import GREY, WIDTH, drawing, plain, plain_ticks, style, svg_uri
from modkit.comparison.trilemma import Axis, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import BboxBase

__all__ = ["pareto_scatters"]

_OFFSETS = (
    (7, 5, "left", "bottom"),
    (-7, 5, "right", "bottom"),
    (7, -5, "left", "top"),
    (-7, -5, "right", "top"),
    (0, 8, "center", "bottom"),
    (0, -8, "center", "top"),
    (9, 0, "left", "center"),
    (-9, 0, "right", "center"),
    (9, 14, "left", "bottom"),
    (-9, 14, "right", "bottom"),
    (9, -14, "left", "top"),
    (-9, -14, "right", "top"),
)


def pareto_scatters(
    pairs: Sequence[tuple[Axis, Axis]],
    points: Sequence[Point],
    fronts: Sequence[Sequence[str]],
    floor: Mapping[str, float],
) -> str:
    """A scatter of each pair of axes, better to the right and upwards, with error bars and the Pareto front.

    Args:
        pairs: The axes, horizontal and vertical.
        points: The points; those not ranked in both are drawn hollow.
        fronts: Labels on the front of each pair.
        floor: What held-out images score, by role.

    Raises:
        ValueError: If there is no pair, or not a front for each.
    """
    if not pairs or len(pairs) != len(fronts):
        raise ValueError(f"pareto_scatters expects pairs with a front each, got {len(pairs)} and {len(fronts)}")
    with drawing(WIDTH * len(pairs) / 3, 3.5) as figure:
        panels = figure.subplots(1, len(pairs), squeeze=False)[0]
        for axes, (x, y), front in zip(panels, pairs, fronts):
            _scatter(axes, x, y, points, front, floor)
        figure.draw_without_rendering()  # places the axes
        for axes, (x, y) in zip(panels, pairs):
            _label(axes, x.role, y.role, _both(x, y, points))
        return svg_uri(figure)


def _scatter(
    axes: Axes, x: Axis, y: Axis, points: Sequence[Point], front: Sequence[str], floor: Mapping[str, float]
) -> None:
    shown = _both(x, y, points)
    for point in shown:
        _point(axes, x, y, point)
    for axis, set_scale, line in ((x, axes.set_xscale, axes.axvline), (y, axes.set_yscale, axes.axhline)):
        if axis.log and all(point.values[axis.role] > 0 for point in shown):
            set_scale("log")
        if axis.role in floor:
            line(floor[axis.role], color=GREY, linewidth=1.0, linestyle=(0, (2, 2)), zorder=1)
    axes.margins(0.16)
    axes.autoscale_view()
    for axis, limits, set_limits in ((x, axes.get_xlim(), axes.set_xlim), (y, axes.get_ylim(), axes.set_ylim)):
        set_limits(limits[::-1] if axis.better == "lower" else limits)
    plain_ticks(axes)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set_xlabel(_titled(x))
    axes.set_ylabel(_titled(y))
    _front(axes, [(point.values[x.role], point.values[y.role]) for point in shown if point.label in front], x)


def _both(x: Axis, y: Axis, points: Sequence[Point]) -> list[Point]:
    """The points that have both values."""
    return [point for point in points if x.role in point.values and y.role in point.values]


def _point(axes: Axes, x: Axis, y: Axis, point: Point) -> None:
    """Draws a point with its error bars, and its seeds as dots."""
    ranked = {x.role, y.role} <= point.ranked
    color, marker, _ = style(point.number)
    color = color if ranked else GREY
    for seed in point.seeds:
        axes.plot(seed[x.role], seed[y.role], marker, color=color, markersize=2.5, alpha=0.55)
    axes.errorbar(
        point.values[x.role],
        point.values[y.role],
        xerr=point.errors[x.role],
        yerr=point.errors[y.role],
        fmt=marker,
        color=color,
        markerfacecolor=color if ranked else "white",
        markersize=6.5,
        elinewidth=1.0,
        capsize=2.5,
        zorder=3,
    )


def _front(axes: Axes, points: Sequence[tuple[float, float]], x: Axis) -> None:
    """The border of what the front dominates: along each point's height up to it, then down to the next."""
    if not points:
        return
    ordered = sorted(points, reverse=x.better == "lower")
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    path = [(left, ordered[0][1]), *ordered, (ordered[-1][0], bottom)]
    across, up = zip(*path)
    axes.plot(across, up, drawstyle="steps-pre", color="#222222", linewidth=1.1, zorder=2)
    axes.set(xlim=(left, right), ylim=axes.get_ylim())


def _label(axes: Axes, x: str, y: str, points: Sequence[Point]) -> None:
    """Names beside points, each where it covers least of what is drawn, of other names and of the outside."""
    taken = [box for point in points for box in _boxes(axes, x, y, point)]
    frame = axes.get_window_extent()
    for point in points:
        where, name = (point.values[x], point.values[y]), plain(point.label)
        texts = [
            axes.annotate(name, where, (across, up), textcoords="offset points", ha=side, va=rise, fontsize=8, zorder=4)
            for across, up, side, rise in _OFFSETS
        ]
        boxes = [text.get_window_extent() for text in texts]
        costs = [_area(box) - _shared(box, frame) + sum(_shared(box, other) for other in taken) for box in boxes]
        chosen = min(range(len(texts)), key=costs.__getitem__)
        taken.append(boxes[chosen])
        texts[chosen].set_in_layout(False)
        for number, text in enumerate(texts):
            if number != chosen:
                text.remove()


def _boxes(axes: Axes, x: str, y: str, point: Point) -> Iterator[BboxBase]:
    """Where a point, its error bars and its seeds are drawn, in pixels."""
    from matplotlib.transforms import Bbox

    across, up = point.values[x], point.values[y]
    wide, high = point.errors[x] or 0.0, point.errors[y] or 0.0
    yield from (
        Bbox(axes.transData.transform(ends)).padded(5)
        for ends in (
            [(across - wide, up), (across + wide, up)],
            [(across, up - high), (across, up + high)],
            *([(seed[x], seed[y])] * 2 for seed in point.seeds),
        )
    )


def _shared(box: BboxBase, other: BboxBase) -> float:
    from matplotlib.transforms import Bbox

    both = Bbox.intersection(box, other)
    return 0.0 if both is None else _area(both)


def _area(box: BboxBase) -> float:
    return float(box.width * box.height)


def _titled(axis: Axis) -> str:
    score = plain(axis.score)
    named = score if score.startswith(axis.role) else f"{axis.role}: {score}"
    return f"{named}\n{axis.better} is better{', log scale' if axis.log else ''} →"
