"""The graph of a checked model as an SVG file: the drawing of `graph` with a legend of the players.

Lines and faint fills use the palette of Okabe and Ito, which remains distinguishable with red-green colour blindness.
Text and background follow the light or dark mode of the reader's system.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

from modkit.building.checker import Report
from modkit.building.graph import LETTER, LINE, Box, Drawing, draw, find_owner

__all__ = ["render_svg"]

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("", "7 3", "2 2")  # for the first six players, the next six, and all others
_PLAIN = "#8a8f94"
_MARGIN = 16.0
_SIZE = 13  # letters are about 8 wide in common monospaced fonts
_STYLE = """
.ground { fill: #ffffff } text { fill: #16191c } .arrow { stroke: #50565c } .head { fill: #50565c }
@media (prefers-color-scheme: dark) {
.ground { fill: #14171a } text { fill: #eceff1 } .arrow { stroke: #a6adb4 } .head { fill: #a6adb4 }
}
"""
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render_svg(report: Report, name: str) -> bytes:
    """Renders a checked model as SVG.

    Args:
        report: The report of `modkit.check`.
        name: Title of the picture.
    """
    drawn = draw(report)
    styles = {player.name: _make_style(index) for index, player in enumerate(report.players)}
    title = f"{name}: {report.parameters:,} parameters"
    legend = [(f"{one}: {_list_stages(report, one)}", style) for one, style in styles.items()]
    if any(_is_frozen(box, report) for box in drawn.boxes):
        legend.append(("no player: parameters are not trained", {"stroke": _PLAIN, "stroke-dasharray": "4 3"}))
    width = max(drawn.width, len(title) * LETTER, *((len(words) + 4) * LETTER for words, _ in legend), 0.0)
    width += 2 * _MARGIN
    height = drawn.height + (len(legend) + 1) * LINE + 4 * _MARGIN
    size = {"width": _format_number(width), "height": _format_number(height), "viewBox": f"0 0 {width:g} {height:g}"}
    fonts = {"font-family": "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace", "font-size": str(_SIZE)}
    root = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img", **size, **fonts})
    _add(root, "title", title)
    _add(root, "style", _STYLE)
    marker = {"id": "head", "viewBox": "0 0 8 8", "refX": "8", "refY": "4", "markerWidth": "8", "markerHeight": "8"}
    head = ET.SubElement(ET.SubElement(root, "defs"), "marker", {**marker, "orient": "auto"})
    ET.SubElement(head, "path", {"d": "M0 0 8 4 0 8z", "class": "head"})
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "class": "ground"})
    _add_words(root, (title,), _MARGIN, _MARGIN, weight="bold")
    _draw(root, drawn.move(_MARGIN, 2 * _MARGIN + LINE), report, styles)
    y = drawn.height + LINE + 3 * _MARGIN
    for words, style in legend:
        box = {"x": _format_number(_MARGIN), "y": _format_number(y + 3), "width": "20", "height": "12", "rx": "2"}
        ET.SubElement(root, "rect", {**_FAINT, **box, **style})
        _add_words(root, (words,), _MARGIN + 4 * LETTER, y)
        y += LINE
    ET.indent(root)
    text: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


_FAINT = {"fill": "none", "stroke-width": "1.5"}


def _draw(root: ET.Element, drawn: Drawing, report: Report, styles: Mapping[str, Mapping[str, str]]) -> None:
    for box in drawn.boxes:
        player = find_owner(report, box.path)
        style = {"stroke": _PLAIN, **(styles[player] if player else {})}
        if _is_frozen(box, report):
            style["stroke-dasharray"] = "4 3"
        group = ET.SubElement(root, "g")
        _add(group, "title", f"{box.path}{f', of the player {player}' if player else ''}")
        place = {name: _format_number(getattr(box, name)) for name in ("x", "y", "width", "height")}
        ET.SubElement(group, "rect", {**_FAINT, **place, "rx": "5", **style})
        _add_words(group, box.lines[:1], box.x + 10, box.y + 10, weight="bold")
        _add_words(group, box.lines[1:], box.x + 10, box.y + 10 + LINE)
    for arrow in drawn.arrows:
        ends = {"x1": arrow.x, "y1": arrow.y, "x2": arrow.to_x, "y2": arrow.to_y}
        numbers = {name: _format_number(value) for name, value in ends.items()}
        ET.SubElement(root, "line", {**numbers, "class": "arrow", "marker-end": "url(#head)"})
    for note in drawn.notes:
        _add_words(root, note.lines, note.x, note.y)


def _is_frozen(box: Box, report: Report) -> bool:
    """Whether a part itself has parameters that no player trains."""
    inside = any(port.path.startswith(f"{box.path}.") and port.parameters for port in report.ports)
    counts = any(port.path == box.path and port.parameters for port in report.ports)
    return counts and not inside and find_owner(report, box.path) is None


def _make_style(index: int) -> dict[str, str]:
    colour = _COLOURS[index % len(_COLOURS)]
    style = {"stroke": colour, "fill": colour, "fill-opacity": "0.14"}
    dashes = _DASHES[min(index // len(_COLOURS), len(_DASHES) - 1)]
    return {**style, "stroke-dasharray": dashes} if dashes else style


def _list_stages(report: Report, player: str) -> str:
    played = [
        f"stage {number} ({round.steps:,} steps)"
        for number, round in enumerate(report.stages)
        if any(one.name == player for one in round.players)
    ]
    return ", ".join(played) or "no stage"


def _add_words(parent: ET.Element, lines: tuple[str, ...], x: float, y: float, *, weight: str = "normal") -> None:
    for index, line in enumerate(lines):
        place = {"x": _format_number(x), "y": _format_number(y + index * LINE + _SIZE)}
        _add(parent, "text", line, {**place, **({"font-weight": weight} if weight != "normal" else {})})


def _add(parent: ET.Element, tag: str, text: str, attributes: Mapping[str, str] | None = None) -> None:
    ET.SubElement(parent, tag, dict(attributes or {})).text = _NOT_XML.sub("\ufffd", text)


def _format_number(value: float) -> str:
    return f"{value:g}"
