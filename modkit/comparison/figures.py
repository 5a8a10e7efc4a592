"""Figures of a comparison as data URIs, which a page can embed: SVG for plots, PNG for pictures.

Systems never differ by colour alone: the colours are Okabe and Ito's, which people with red-green colour blindness can
distinguish, and each system also has its own marker and line style.
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

from modkit.comparison.curves import Curve, thin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "GREY", "WIDTH", "Line", "Style", "add_legend", "choose_style", "draw_learning_curves", "embed_png", "embed_svg",
    "format_short", "format_ticks", "make_printable", "open_figure",
]  # fmt: skip

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
    """The look of a system in every figure."""

    color: str
    marker: str
    line: Any


class Line(NamedTuple):
    """Learning curves of a system: for each training seed a mapping from names to curves."""

    label: str
    style: Style
    curves: Sequence[Mapping[str, Curve]]


def choose_style(number: int) -> Style:
    """Returns the style of the n-th system; the first 280 differ."""
    return Style(_COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)], _LINES[number % len(_LINES)])


def embed_png(png: bytes) -> str:
    """Encodes a PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def draw_learning_curves(names: Sequence[str], lines: Sequence[Line]) -> str:
    """Draws a row of panels for each name, against the step, the images seen and the seconds of training.

    Raises:
        ValueError: If there is no name.
    """
    if not names:
        raise ValueError("draw_learning_curves expects names of curves, got none")
    panels = (("steps", "step"), ("images", "images seen"), ("seconds", "wall-clock, s"))
    with open_figure(WIDTH, 1.55 * len(names) + 0.6) as figure:
        grid = figure.subplots(len(names), 3, sharey="row", squeeze=False)
        for name, row in zip(names, grid):
            for axes, (field, _) in zip(row, panels):
                _draw_curves(axes, name, lines, field)
            row[0].set_title(make_printable(name, 60), loc="left", fontsize=8.5)
        for axes, (_, title) in zip(grid[-1], panels):
            axes.set_xlabel(title)
        used = [line for line in lines if any(name in one for one in line.curves for name in names)]
        add_legend(figure, [(_describe(line), line.style) for line in used])
        return embed_svg(figure)


def _draw_curves(axes: Axes, name: str, lines: Sequence[Line], field: str) -> None:
    values: list[float] = []
    for line in lines:
        for one in line.curves:
            if name not in one:
                continue
            curve = thin(one[name])
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
    format_ticks(axes)
    axes.grid(True)
    axes.tick_params(labelsize=7.5)


def _describe(line: Line) -> str:
    seeds = f" ({len(line.curves)} seeds)" if len(line.curves) > 1 else ""
    return make_printable(line.label) + seeds


def add_legend(figure: Figure, entries: Sequence[tuple[str, Style]]) -> None:
    """Adds a legend of labels and styles above the axes, in rows of four."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=label, color=look.color, linestyle=look.line, marker=look.marker, markersize=4)
        for label, look in entries
    ]
    figure.legend(handles=handles, loc="upper left", ncols=4, bbox_to_anchor=(0.0, 1.0))
    height = 0.3 / figure.get_figheight() * -(-len(handles) // 4)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - height))  # type: ignore[union-attr, call-arg]


def format_ticks(axes: Axes) -> None:
    """Formats ticks as plain numbers, since mathematical text is not rendered."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            low, high = sorted(abs(end) for end in axis.get_view_interval())
            few = low > 0 and high / low < 30
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_formatter(FuncFormatter(lambda value, _: format_short(value)))
        else:
            locator = MaxNLocator(5)
            places = locator.tick_values(*axis.get_view_interval())
            axis.set_major_locator(locator)
            axis.set_major_formatter(FuncFormatter(partial(_format_tick, step=float(places[1] - places[0]))))


def format_short(value: float) -> str:
    """Formats a number with three digits."""
    if value and (abs(value) >= 1e6 or abs(value) < 1e-3):
        return f"{value:.2g}".replace("-", "−")
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−")


def _format_tick(value: float, _: int, *, step: float) -> str:
    """Formats a tick with just enough digits to tell it from its neighbours, `step` away."""
    digits = next((digits for digits in range(7) if math.isclose(round(step, digits), step, rel_tol=1e-3)), None)
    if digits is None or abs(value) >= 1e7:
        return format_short(value)
    text = f"{value:,.{digits}f}"
    return "0" if not float(text.replace(",", "")) else text.replace("-", "−")


def make_printable(text: str, longest: int = _LONGEST) -> str:
    """Shortens a text and replaces characters that cannot be drawn or are not allowed in XML."""
    kept = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return kept if len(kept) <= longest else kept[: longest - 1] + "…"


@contextmanager
def open_figure(width: float, height: float) -> Iterator[Figure]:
    """Opens a figure of this size, in inches, with the settings that all figures share."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a label may be in any script
        yield Figure(figsize=(width, height), layout="constrained")


def embed_svg(figure: Figure) -> str:
    """Encodes a figure as an SVG data URI; equal figures give equal files in every process."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
