"""The theme of figures: the look of each system, and every colour in a light and a dark version.

Systems never differ by colour alone: the colours are Okabe and Ito's, which people with red-green colour blindness can
distinguish, and each system also has its own marker and line style.

Figures are drawn in the light colours. In the SVG file each of them becomes a custom property, and a style sheet gives
it the value that the reader prefers, on paper always the light one:

    stroke: #1a1a1a   ->   stroke: var(--ink)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

__all__ = ["AXIS", "GREY", "GRID", "INK", "PAPER", "Style", "choose_style", "find_dark", "make_adaptive"]

PAPER, INK, AXIS, GREY, GRID = "#ffffff", "#1a1a1a", "#444444", "#767676", "#dddddd"
"""The colours of the background, of text, of axes, of what stands in the background, and of grids."""

_DARK_PAPER = {PAPER: "#15181b", INK: "#e6e4e0", AXIS: "#a8abae", GREY: "#93979b", GRID: "#33383d"}
_NAMES = {PAPER: "paper", INK: "ink", AXIS: "axis", GREY: "grey", GRID: "grid"}
# Okabe and Ito (2008), https://jfly.uni-koeln.de/color/, without yellow, which is too light for lines on white; instead
# of black a tone that Matplotlib writes down, since SVG's own default is black.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#101010")
_DARK_COLORS = ("#3f8fdb", "#e8702a", "#1fbf92", "#e6a3c8", "#f2bd49", "#a3dbff", "#f4f4f4")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
_WRITTEN = re.compile(r"(?<=[:;\" ])(fill|stroke): (#[0-9a-f]{6})(?=[;\"])")
_OPENING = re.compile(r"<svg\b[^>]*>")


class Style(NamedTuple):
    """The look of a system in every figure."""

    color: str
    marker: str
    line: Any


def choose_style(number: int) -> Style:
    """Returns the style of the n-th system; the first 280 differ."""
    return Style(_COLORS[number % len(_COLORS)], _MARKERS[number % len(_MARKERS)], _LINES[number % len(_LINES)])


def find_dark(color: str) -> str:
    """Returns the version of a colour of the theme for a dark background.

    Raises:
        KeyError: If the theme lacks the colour.
    """
    return (_DARK_PAPER | dict(zip(_COLORS, _DARK_COLORS)))[color]


def make_adaptive(svg: str) -> str:
    """Makes an SVG file that was drawn in the light colours follow the reader's preference.

    Raises:
        ValueError: If the text has no `<svg>` element.

    Examples:
        >>> print(make_adaptive('<svg><path style="stroke: #dddddd"/></svg>').partition("</style>")[2])
        <path style="stroke: var(--grid)"/></svg>
    """
    opening = _OPENING.search(svg)
    if opening is None:
        raise ValueError("make_adaptive expects an SVG file, got no <svg> element")
    names = _NAMES | {color: f"system-{number}" for number, color in enumerate(_COLORS)}

    def name(match: re.Match[str]) -> str:
        return f"{match[1]}: var(--{names[match[2]]})" if match[2] in names else match[0]

    body = _WRITTEN.sub(name, svg[opening.end() :])
    light = "; ".join(_list_declarations(names, dark=False))
    dark = "; ".join(_list_declarations(names, dark=True))
    sheet = f"<style>svg {{ {light} }} @media screen and (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}</style>"
    return svg[: opening.end()] + sheet + body


def _list_declarations(names: dict[str, str], *, dark: bool) -> Iterator[str]:
    for color, name in names.items():
        yield f"--{name}: {find_dark(color) if dark else color}"
