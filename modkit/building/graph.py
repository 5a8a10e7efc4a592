"""The layout of a model's graph: parts as nested boxes, types at the arrows between them, players by colour.

A part is drawn in the box of the part whose slot it fills. An arrow leads down from a part to the neighbour that
receives its output. Inputs from the outer part enter at the left, and outputs that no neighbour receives leave at the
right. Parts without inputs and parameters are in the last rows of their box. The drawing depends on the report only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from modkit.building.checker import Port, Report

__all__ = ["Arrow", "Box", "Drawing", "Note", "draw", "find_owner"]

LINE = 18.0
"""Height of a line of text."""
LETTER = 8.0
"""Width of a letter; the font is monospaced."""

_PAD = 10.0
_GAP = 12.0
_ARROW = 34.0  # length of an arrow without text
_INDENT = 28.0
_ROW = 560.0  # where a row of small boxes breaks
_ASKED = {"decoder": "x", "generator": "x", "network": "out"}
"""The type of a part's output among the types that it receives, by kind; not one of its inputs."""


@dataclass(frozen=True)
class Box:
    """The box of a part: its path in the spec (`data` for the data set), position, size and lines of text."""

    path: str
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """Lines of text; the top left corner of the first is at x, y."""

    x: float
    y: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Arrow:
    """A straight arrow."""

    x: float
    y: float
    to_x: float
    to_y: float


@dataclass(frozen=True)
class Drawing:
    """Boxes, outer before inner ones, with notes and arrows."""

    width: float
    height: float
    boxes: tuple[Box, ...] = ()
    notes: tuple[Note, ...] = ()
    arrows: tuple[Arrow, ...] = ()

    def move(self, x: float, y: float) -> Drawing:
        """Returns the drawing moved by x and y."""
        return replace(
            self,
            boxes=tuple(replace(one, x=one.x + x, y=one.y + y) for one in self.boxes),
            notes=tuple(replace(one, x=one.x + x, y=one.y + y) for one in self.notes),
            arrows=tuple(Arrow(one.x + x, one.y + y, one.to_x + x, one.to_y + y) for one in self.arrows),
        )

    def stretch(self, width: float, height: float) -> Drawing:
        """Returns the drawing with another size of its outermost box."""
        outer = replace(self.boxes[0], width=width, height=height)
        arrows = tuple(replace(one, to_x=width) if one.to_x == self.width else one for one in self.arrows)
        return replace(self, width=width, height=height, boxes=(outer, *self.boxes[1:]), arrows=arrows)

    def combine(self, other: Drawing) -> Drawing:
        """Returns both drawings as one, of this one's size; the other keeps its position."""
        boxes, notes, arrows = self.boxes + other.boxes, self.notes + other.notes, self.arrows + other.arrows
        return replace(self, boxes=boxes, notes=notes, arrows=arrows)


@dataclass(frozen=True)
class _Row:
    """A part among its neighbours: its drawing, inputs and outputs, and whether the part above provides its input."""

    drawing: Drawing
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    fed: bool


def draw(report: Report) -> Drawing:
    """Lays out a checked model, with its data set (if there is one) above it."""
    children: dict[str, list[Port]] = {}
    paths = {port.path for port in report.ports}
    for port in report.ports:
        children.setdefault(_find_parent(port.path, paths), []).append(port)
    model = _draw_box(children[""][0], children, report)
    x = (f"x {report.x}",)
    if "data" not in report.plan.parts:
        return _draw_column([_Row(model, (), (), False)])
    data = _draw_leaf("data", (f"data: {report.plan.parts['data'].name}",))
    return _draw_column([_Row(data, (), (), False), _Row(model, x, (), True)])


def find_owner(report: Report, path: str) -> str | None:
    """Returns the name of the player that trains the part at a path, or None."""
    attribute = report.modules.get(path, [path.partition(".")[2]])[0]
    found = [
        (len(module), player.name)
        for player in report.players
        for module in player.modules
        if f"{attribute}.".replace("[", ".[").startswith(f"{module}.".replace("[", ".["))
    ]
    return max(found)[1] if found else None


def _draw_box(port: Port, children: Mapping[str, Sequence[Port]], report: Report) -> Drawing:
    """Draws a part with all parts inside it."""
    slot = port.path.removeprefix(_find_parent(port.path, {other.path for other in report.ports})).removeprefix(".")
    lines = [f"{slot}: {port.name}"]
    if port.parameters:
        lines.append(f"{port.parameters:,} parameters")
    if port.path in report.unchecked:
        lines.append("unchecked")
    inside = children.get(port.path, [])
    if not inside:
        return _draw_leaf(port.path, tuple(lines))
    flow = [one for one in inside if one.types or one.parameters or children.get(one.path)]
    rows: list[_Row] = []
    ordered = _order(flow, report)
    for index, one in enumerate(ordered):
        source = _find_source(one, flow, report)
        above = index > 0 and source is ordered[index - 1]
        takes = (
            _list_inputs(one)
            if above or source is None
            else (f"from {source.path.rpartition('.')[2]}", *_list_inputs(one))
        )
        feeds = index + 1 < len(ordered) and _find_source(ordered[index + 1], flow, report) is one
        gives = () if feeds or not one.emits else tuple(one.emits.split("; "))
        rows.append(_Row(_draw_box(one, children, report), takes, gives, above))
    small = _wrap([_draw_box(one, children, report) for one in inside if one not in flow])
    return _draw_container(port.path, tuple(lines), _draw_column(rows), small)


def _draw_leaf(path: str, lines: tuple[str, ...]) -> Drawing:
    width, height = _measure(lines)
    width, height = width + 2 * _PAD, height + 2 * _PAD
    return Drawing(width, height, (Box(path, 0, 0, width, height, lines),))


def _draw_container(path: str, lines: tuple[str, ...], column: Drawing, small: Drawing) -> Drawing:
    """Draws a box around rows of parts with small boxes below them."""
    head, top = _measure(lines)
    width = max(head, column.width - 2 * _PAD, small.width) + 2 * _PAD
    wide = column.move(0, top + _PAD + _GAP)
    arrows = tuple(replace(one, to_x=width) if one.to_x == column.width else one for one in wide.arrows)
    height = top + _PAD + _GAP + column.height
    if small.height:
        height += small.height + (_GAP if column.height else 0)
    outer = Drawing(width, height + _PAD, (Box(path, 0, 0, width, height + _PAD, lines),))
    return outer.combine(replace(wide, arrows=arrows)).combine(small.move(_PAD, height - small.height))


def _draw_column(rows: Sequence[_Row]) -> Drawing:
    """Draws rows of equal width below each other, with arrows and notes between and beside them."""
    if not rows:
        return Drawing(0, 0)
    left = max(_measure_gutter(row.takes) if row.takes and not row.fed else _PAD for row in rows)
    right = max(_measure_gutter(row.gives) if row.gives else _PAD for row in rows)
    above = [_INDENT + _PAD + _measure(row.takes)[0] for row in rows if row.fed]
    inner = max(row.drawing.width for row in rows)
    width = max([left + inner + right, *(left + one + _PAD for one in above)])
    inner = width - left - right
    drawn, y = Drawing(width, 0), 0.0
    for index, row in enumerate(rows):
        if row.fed:
            down = _measure(row.takes)[1] + 2 * _GAP
            arrow = Arrow(left + _INDENT, y, left + _INDENT, y + down)
            drawn = _add(drawn, Note(left + _INDENT + _PAD, y + _GAP / 2, row.takes), arrow)
            y += down
        elif index:
            y += _GAP
        beside = max(_measure(words)[1] + _GAP for words in (() if row.fed else row.takes, row.gives))
        height = max(row.drawing.height, beside)
        drawn = drawn.combine(row.drawing.stretch(inner, height).move(left, y))
        if row.takes and not row.fed:
            at = y + _measure(row.takes)[1] + _GAP / 2
            drawn = _add(drawn, Note(_PAD, y, row.takes), Arrow(0, at, left, at))
        if row.gives:
            at = y + _measure(row.gives)[1] + _GAP / 2
            drawn = _add(drawn, Note(left + inner + _PAD, y, row.gives), Arrow(left + inner, at, width, at))
        y += height
    return replace(drawn, height=y)


def _wrap(drawings: Iterable[Drawing]) -> Drawing:
    """Wraps small boxes into rows."""
    placed: list[Drawing] = []
    x = y = width = height = 0.0
    for one in drawings:
        if x and x + one.width > _ROW:
            x, y = 0.0, height + _GAP
        placed.append(one.move(x, y))
        x += one.width + _GAP
        width, height = max(width, x - _GAP), max(height, y + one.height)
    return reduce(Drawing.combine, placed, Drawing(width, height))


def _order(ports: Sequence[Port], report: Report) -> list[Port]:
    """Orders parts as they were built, except that a part's receiver follows it."""
    ordered: list[Port] = []
    for port in ports:
        source = _find_source(port, ports, report)
        ordered.insert(ordered.index(source) + 1 if source in ordered else len(ordered), port)
    return ordered


def _find_source(port: Port, ports: Sequence[Port], report: Report) -> Port | None:
    """Returns the part among these that provides the input of a part, or None."""
    words = report.sources.get(port.path, "").split()
    return next((one for one in ports if one.path in words), None)


def _list_inputs(port: Port) -> tuple[str, ...]:
    return tuple(f"{name} {type}" for name, type in port.types.items() if name != _ASKED.get(port.kind))


def _find_parent(path: str, paths: set[str]) -> str:
    """Returns the path of the part around this one, or an empty string for the outermost."""
    return max((other for other in paths if path.startswith(f"{other}.")), key=len, default="")


def _measure_gutter(lines: tuple[str, ...]) -> float:
    return max(_ARROW, _measure(lines)[0] + 2 * _PAD)


def _measure(lines: tuple[str, ...]) -> tuple[float, float]:
    return max((len(line) for line in lines), default=0) * LETTER, len(lines) * LINE


def _add(drawn: Drawing, note: Note, arrow: Arrow) -> Drawing:
    return replace(drawn, notes=(*drawn.notes, note), arrows=(*drawn.arrows, arrow))
