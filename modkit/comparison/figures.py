"""Figures of a comparison as data URIs, which a page can embed: SVG for plots, PNG for pictures."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from modkit.comparison.curves import Curve, thin
from modkit.comparison.labels import make_printable, shorten_labels
from modkit.comparison.theme import AXIS, GREY, GRID, INK, Style, make_adaptive
from modkit.comparison.ticks import format_ticks, thin_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "CLOCKS", "WIDTH", "Line", "add_legend", "draw_learning_curves", "embed_svg", "encode_svg",
    "explain_empty", "open_figure",
]  # fmt: skip

WIDTH = 10.0
"""The width of every figure, in inches."""

CLOCKS = {"step": "steps", "images seen": "images", "wall-clock time in seconds": "seconds"}
"""What learning curves are drawn against, and the field of a `Curve` that has it."""

_PANELS = 3  # in a row of learning curves
_COLUMNS = 4  # of a legend
_LEGEND_ROW = 0.3  # the height of a legend's row, in inches
_THIN, _WIDER, _WIDEST = 1.2, 1.6, 7.0  # widths of lines, in points
_SETTINGS = {
    "axes.edgecolor": AXIS,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.prop_cycle": f"cycler(color=['{INK}'])",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.unicode_minus": True,
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "modkit",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": AXIS,
    "xtick.labelcolor": INK,
    "ytick.color": AXIS,
    "ytick.labelcolor": INK,
}


class Line(NamedTuple):
    """Learning curves of a system: for each training seed a mapping from names to curves."""

    label: str
    style: Style
    curves: Sequence[Mapping[str, Curve]]


def draw_learning_curves(names: Sequence[str], lines: Sequence[Line], clock: str) -> str:
    """Draws a panel for each name, against one of `CLOCKS`.

    Raises:
        ValueError: If there is no name, or no such clock.
    """
    if not names:
        raise ValueError("draw_learning_curves expects names of curves, got none")
    if clock not in CLOCKS:
        raise ValueError(f"draw_learning_curves expects the clock to be one of {', '.join(CLOCKS)}, got {clock!r}")
    rows = -(-len(names) // _PANELS)
    with open_figure(WIDTH, 2.1 * rows + 0.6) as figure:
        panels = list(figure.subplots(rows, min(_PANELS, len(names)), squeeze=False).flat)
        for axes in panels:
            axes.set_visible(False)
        for name, axes in zip(names, panels):
            axes.set_visible(True)
            _draw_curves(axes, name, lines, CLOCKS[clock])
            axes.set_title(make_printable(name, 40), loc="left", fontsize=8.5)
            if axes.lines:
                axes.set_xlabel(clock)
        used = [line for line in lines if any(name in one for one in line.curves for name in names)]
        labels = shorten_labels([line.label for line in used])
        seeds = [f" ({len(line.curves)} seeds)" if len(line.curves) > 1 else "" for line in used]
        add_legend(figure, [(label + more, line.style) for label, more, line in zip(labels, seeds, used)])
        thin_ticks(figure)
        return embed_svg(figure)


def add_legend(figure: Figure, entries: Sequence[tuple[str, Style]]) -> None:
    """Adds a legend of labels and styles above the axes, in rows of at most four and as many as fit."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=label, color=look.color, linestyle=look.line, marker=look.marker, markersize=4)
        for label, look in entries
    ]
    for columns in range(_COLUMNS, 0, -1):
        legend = figure.legend(handles=handles, loc="upper left", ncols=columns, bbox_to_anchor=(0.0, 1.0))
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    height = _LEGEND_ROW / figure.get_figheight() * -(-len(handles) // columns)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - height))  # type: ignore[union-attr, call-arg]


def explain_empty(axes: Axes, reason: str) -> None:
    """Writes into a panel why it shows nothing, in place of axes whose numbers nothing would stand for."""
    axes.spines[:].set_visible(False)
    axes.tick_params(bottom=False, left=False, labelbottom=False, labelleft=False, which="both")
    axes.grid(False)
    axes.text(0.5, 0.5, reason, transform=axes.transAxes, ha="center", va="center", color=GREY, fontstyle="italic")


def _draw_curves(axes: Axes, name: str, lines: Sequence[Line], field: str) -> None:
    logged = [(line, thin(one[name])) for line in lines for one in line.curves if name in one]
    timed = [(line, curve) for line, curve in logged if np.isfinite(getattr(curve, field)).any()]
    if not timed:
        explain_empty(axes, "no times were logged" if logged else "no values were logged")
        return
    for (line, curve), width in zip(timed, _choose_widths([curve for _, curve in timed])):
        axes.plot(
            getattr(curve, field),
            curve.values,
            color=line.style.color,
            linestyle=line.style.line,
            marker=line.style.marker if len(curve.values) < 30 else "",
            markersize=3.5,
            linewidth=width,
        )
    values = np.concatenate([curve.values for _, curve in timed])
    if values.min() > 0 and values.max() > 30 * values.min():
        axes.set_yscale("log")
    untimed = dict.fromkeys(line.label for line, _ in logged) if len(timed) < len(logged) else {}
    if absent := [label for label in untimed if label not in {line.label for line, _ in timed}]:
        axes.set_title(make_printable(f"no times: {', '.join(absent)}", 40), loc="right", fontsize=7.5, color=GREY)
    format_ticks(axes)
    axes.grid(True)
    axes.tick_params(labelsize=7.5)


def _choose_widths(curves: Sequence[Curve]) -> list[float]:
    """Chooses the widths of curves in the order in which they are drawn: one is wider than those that will cover it."""
    reach = max(float(np.ptp(curve.values)) for curve in curves)
    covers = [
        sum(_is_covered(curve, other, 0.03 * reach) for other in curves[n + 1 :]) for n, curve in enumerate(curves)
    ]
    return [min(_THIN + _WIDER * count, _WIDEST) for count in covers]


def _is_covered(curve: Curve, other: Curve, tiny: float) -> bool:
    """Tells whether another curve runs within `tiny` of a curve over all of its steps."""
    inside = other.steps[0] <= curve.steps[0] and curve.steps[-1] <= other.steps[-1]
    return inside and bool((abs(np.interp(curve.steps, other.steps, other.values) - curve.values) <= tiny).all())


@contextmanager
def open_figure(width: float, height: float) -> Iterator[Figure]:
    """Opens a figure of this size, in inches, with the settings that all figures share."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_SETTINGS), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a label may be in any script
        yield Figure(figsize=(width, height), layout="constrained")


def encode_svg(figure: Figure) -> str:
    """Encodes a figure as SVG, light or dark as the reader prefers; equal figures give equal files."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return make_adaptive(file.getvalue())


def embed_svg(figure: Figure) -> str:
    """Encodes a figure as an SVG data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(encode_svg(figure).encode()).decode()
