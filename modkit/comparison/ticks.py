"""Ticks of figures: plain numbers that differ from their neighbours', and only as many as there is room for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis, Tick
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = ["format_short", "format_ticks", "thin_ticks"]

_MOST = 5  # intervals between the ticks of an axis
_GAP = 3.0  # points between two labels
# digits at which a logarithmic axis has ticks, each with the ratio of its limits from which on these are enough
_SUBS = ((4.0, (1.0, 2.0, 5.0)), (30.0, (1.0, 3.0)), (1000.0, (1.0,)))


def format_ticks(axes: Axes) -> None:
    """Formats ticks as plain numbers, since mathematical text is not rendered."""
    for axis, scale in _list_axes(axes):
        _format_axis(axis, scale, _MOST)


def thin_ticks(figure: Figure) -> None:
    """Thins the labels of ticks until none touches another, in its own panel or in the next.

    While the labels of an axis touch, it gets fewer ticks; where two panels meet, the later one's label is left out.
    """
    figure.draw_without_rendering()
    gap = _GAP * figure.dpi / 72
    for axis, scale in (one for axes in figure.axes for one in _list_axes(axes)):
        most = _MOST
        while most > 1 and _is_crowded([box for _, box in _list_labels(axis)], gap):
            most -= 1
            _format_axis(axis, scale, most)
    figure.draw_without_rendering()
    placed: list[Bbox] = []
    for axis, _ in (one for axes in figure.axes for one in _list_axes(axes)):
        for tick, box in _list_labels(axis):
            if any(_is_near(box, other, gap) for other in placed):
                tick.label1.set_visible(False)
            else:
                placed.append(box)


def format_short(value: float) -> str:
    """Formats a number with three digits."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2g}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def _list_axes(axes: Axes) -> list[tuple[Axis, str]]:
    """Lists both axes of a panel with their scales."""
    return [(axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())]


def _format_axis(axis: Axis, scale: str, most: int) -> None:
    """Gives an axis ticks with at most `most` intervals, or fewer digits if it is logarithmic."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = sorted(abs(end) for end in axis.get_view_interval())
    enough = [subs for ratio, subs in _SUBS if low > 0 and high / low >= ratio] if scale == "log" else []
    if enough:
        place = min(len(enough) - 1 + _MOST - most, len(_SUBS) - 1)
        axis.set_major_locator(LogLocator(subs=_SUBS[place][1], numticks=most + 4))
    else:
        axis.set_major_locator(MaxNLocator(most))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(partial(_format_tick, axis=axis, even=not enough)))


def _format_tick(value: float, _: int, *, axis: Axis, even: bool) -> str:
    """Formats a tick; if ticks are even, with just enough digits to tell it from its neighbours."""
    places = axis.get_majorticklocs()
    if not even or len(places) < 2:
        return format_short(value)
    step, largest = abs(float(places[1] - places[0])), float(abs(places).max())
    coarsest = -math.floor(math.log10(step))
    digits = next(n for n in range(coarsest, coarsest + 4) if math.isclose(round(step, n), step, rel_tol=1e-3))
    value = round(value, digits)
    if not value:
        return "0"
    if 1e-4 <= largest < 1e7:
        text = f"{value:,.{max(digits, 0)}f}"
    else:
        text = f"{value:,.{math.floor(math.log10(largest)) + digits + 1}g}"
    return text.replace("-", "−")


def _list_labels(axis: Axis) -> Iterator[tuple[Tick, Bbox]]:
    """Lists the ticks of an axis whose labels are seen, with the places of the labels."""
    low, high = sorted(axis.get_view_interval())
    margin = 1e-9 * (high - low)
    for tick in axis.get_major_ticks():
        if low - margin <= tick.get_loc() <= high + margin and tick.label1.get_visible() and tick.label1.get_text():
            yield tick, tick.label1.get_window_extent()


def _is_crowded(boxes: Sequence[Bbox], gap: float) -> bool:
    return any(_is_near(a, b, gap) for n, a in enumerate(boxes) for b in boxes[:n])


def _is_near(a: Bbox, b: Bbox, gap: float) -> bool:
    """Tells whether two labels overlap, or stand closer side by side than `gap`."""
    return bool(a.x0 < b.x1 + gap and b.x0 < a.x1 + gap and a.y0 < b.y1 and b.y0 < a.y1)
