"""Ticks of figures: plain numbers that differ from their neighbours', and only as many labels as there is room for."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = ["format_short", "format_ticks", "thin_ticks"]

_MOST = 5  # intervals between the ticks of an axis
_GAP = 3.0  # points between two labels
# digits at which a logarithmic axis has ticks, each with the ratio of its limits from which on these are enough
_SUBS = ((4.0, (1.0, 2.0, 5.0)), (30.0, (1.0, 3.0)), (1000.0, (1.0,)))


def format_ticks(axes: Axes) -> None:
    """Formats ticks as plain numbers, since mathematical text is not rendered."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        low, high = sorted(abs(end) for end in axis.get_view_interval())
        enough = [subs for ratio, subs in _SUBS if scale == "log" and low > 0 and high / low >= ratio]
        axis.set_major_locator(LogLocator(subs=enough[-1]) if enough else MaxNLocator(_MOST))
        axis.set_major_formatter(FuncFormatter(format_short if enough else partial(_format_even, axis=axis)))
        axis.set_minor_formatter(NullFormatter())


def thin_ticks(figure: Figure) -> None:
    """Hides each tick's label that would touch one before it, in its own panel or in another."""
    figure.draw_without_rendering()
    gap = _GAP * figure.dpi / 72
    placed: list[Bbox] = []
    for axis in (one for axes in figure.axes for one in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        margin = 1e-9 * (high - low)
        for tick in axis.get_major_ticks():
            label = tick.label1
            if low - margin <= tick.get_loc() <= high + margin and label.get_visible() and label.get_text():
                box = label.get_window_extent()
                label.set_visible(not box.padded(gap, 0).count_overlaps(placed))
                placed += [box] if label.get_visible() else []


def format_short(value: float, _: int | None = None) -> str:
    """Formats a number with three digits."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2g}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def _format_even(value: float, _: int, *, axis: Axis) -> str:
    """Formats one of evenly spaced ticks, whose distance is a fifth of the axis or more, without rounding errors."""
    low, high = axis.get_view_interval()
    value = round(value, 3 - math.floor(math.log10(abs(high - low))))
    return f"{value + 0.0:,.12g}".replace("-", "−")
