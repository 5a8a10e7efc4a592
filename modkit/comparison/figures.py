"""Figures of a comparison, as data URIs that a page holds in itself: SVG of plots, PNG of pictures.

Nothing is told by colour alone: the colours are Okabe and Ito's, which people who can't tell red from green can tell
apart, and each comes with a marker and a line style of its own.
"""

from __future__ import annotations

import base64
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from modkit.comparison.curves import Curve, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "GREY",
    "WIDTH",
    "Line",
    "Style",
    "drawing",
    "learning_curves",
    "picture_uri",
    "plain",
    "plain_ticks",
    "short",
    "style",
    "svg_uri",
]

# Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, without yellow, which is too light for lines on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
GREY = "#767676"
WIDTH = 10.0
_LONGEST = 32
_SETTINGS = {
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "modkit",
    "text.parse_math": False,
}


class Style(NamedTuple):
    """How one system is drawn everywhere."""

    color: str
    marker: str
    line: Any


class Line(NamedTuple):
    """Learning curves of a system by name, one mapping a training seed."""

    label: str
    style: Style
    curves: Sequence[Mapping[str, Curve]]


def style(number: int) -> Style:
    """The style of the n-th system; the first 280 differ."""
    return Style(_COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)], _LINES[number % len(_LINES)])


def picture_uri(png: bytes) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def learning_curves(names: Sequence[str], lines: Sequence[Line]) -> str:
    """A row for each name: against the step, images seen and seconds of training.

    Raises:
        ValueError: If there is no name.
    """
    if not names:
        raise ValueError("learning_curves expects names of curves, got none")
    panels = (("steps", "step"), ("images", "images seen"), ("seconds", "wall-clock, s"))
    top = 0.3 / (1.55 * len(names) + 0.6)
    with drawing(WIDTH, 1.55 * len(names) + 0.6) as figure:
        grid = figure.subplots(len(names), 3, sharey="row", squeeze=False)
        for name, row in zip(names, grid):
            for axes, (field, _) in zip(row, panels):
                _curves(axes, name, lines, field)
            row[0].set_title(plain(name, 60), loc="left", fontsize=8.5)
        for axes, (_, title) in zip(grid[-1], panels):
            axes.set_xlabel(title)
        used = [line for line in lines if any(name in one for one in line.curves for name in names)]
        handles = [_handle(line) for line in used]
        figure.legend(handles=handles, loc="upper left", ncols=4, bbox_to_anchor=(0.0, 1.0), fontsize=8.5)
        figure.get_layout_engine().set(rect=(0, 0, 1, 1 - top * -(-len(used) // 4)))  # type: ignore[union-attr, call-arg]
        return svg_uri(figure)


def _curves(axes: Axes, name: str, lines: Sequence[Line], field: str) -> None:
    values: list[float] = []
    for line in lines:
        for one in line.curves:
            if name not in one:
                continue
            curve = thinned(one[name])
            values += curve.values.tolist()
            marker = line.style.marker if len(curve.values) < 30 else ""
            axes.plot(
                getattr(curve, field),
                curve.values,
                color=line.style.color,
                linestyle=line.style.line,
                marker=marker,
                markersize=3.5,
                linewidth=1.2,
            )
    if values and min(values) > 0 and max(values) > 30 * min(values):
        axes.set_yscale("log")
    plain_ticks(axes)
    axes.grid(True)
    axes.tick_params(labelsize=7.5)


def _handle(line: Line) -> Any:
    from matplotlib.lines import Line2D

    seeds = f" ({len(line.curves)} seeds)" if len(line.curves) > 1 else ""
    look = {"color": line.style.color, "linestyle": line.style.line, "marker": line.style.marker}
    return Line2D([], [], label=plain(line.label) + seeds, markersize=4, **look)


def plain_ticks(axes: Axes) -> None:
    """Ticks as plain numbers, since mathematical text is not read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            low, high = sorted(abs(end) for end in axis.get_view_interval())
            few = low > 0 and high / low < 30
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        else:
            locator = MaxNLocator(5)
            places = locator.tick_values(*axis.get_view_interval())
            axis.set_major_locator(locator)
            axis.set_major_formatter(FuncFormatter(partial(_spaced, step=float(places[1] - places[0]))))


def short(value: float) -> str:
    """A number in three digits."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2g}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def _spaced(value: float, _: int, *, step: float) -> str:
    """A number with as many digits as its neighbours, `step` away, differ in."""
    digits = next((digits for digits in range(7) if math.isclose(round(step, digits), step, rel_tol=1e-3)), None)
    if digits is None or abs(value) >= 1e7:
        return short(value)
    text = f"{value:,.{digits}f}"
    return "0" if not float(text.replace(",", "")) else text.replace("-", "−")


def plain(text: str, longest: int = _LONGEST) -> str:
    """A text that can be drawn and stands in XML."""
    kept = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


@contextmanager
def drawing(width: float, height: float) -> Iterator[Figure]:
    """A figure of that many inches, in the settings that all share."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a name may be in any script
        yield Figure(figsize=(width, height), layout="constrained")


def svg_uri(figure: Figure) -> str:
    """A figure as a data URI, the same in every process."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
