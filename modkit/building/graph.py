"""The graph of a checked model as a picture: parts as nested boxes, types on the arrows between, players by colour.

A part stands in the box of the part whose slot it fills. Where one part feeds its neighbour, an arrow leads down from
it; what a part is told by its owner comes from the left, what nothing beside it takes goes out to the right. Parts that
are told nothing and learn nothing are in the last rows of their owner. The picture is a function of the report alone.
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
"""Width of a letter, of which all have the same."""

_PAD = 10.0
_GAP = 12.0
_ARROW = 34.0  # of an arrow that has no words
_INDENT = 28.0
_ROW = 560.0  # where a row of small boxes breaks
_ASKED = {"decoder": "x", "generator": "x", "network": "out"}
"""The type that a part of a kind is told as what it is to emit: none of its inputs."""


@dataclass(frozen=True)
class Box:
    """A part's box: its path in the spec (`data` of the data set), its place, and the lines at its top."""

    path: str
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Note:
    """Lines of text, the first one's top left corner being at x, y."""

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
    """Boxes, outer ones before those inside, with what stands beside them."""

    width: float
    height: float
    boxes: tuple[Box, ...] = ()
    notes: tuple[Note, ...] = ()
    arrows: tuple[Arrow, ...] = ()

    def move(self, x: float, y: float) -> Drawing:
        """The same elsewhere."""
        return replace(
            self,
            boxes=tuple(replace(one, x=one.x + x, y=one.y + y) for one in self.boxes),
            notes=tuple(replace(one, x=one.x + x, y=one.y + y) for one in self.notes),
            arrows=tuple(Arrow(one.x + x, one.y + y, one.to_x + x, one.to_y + y) for one in self.arrows),
        )

    def stretch(self, width: float, height: float) -> Drawing:
        """The same with an outermost box of another size."""
        outer = replace(self.boxes[0], width=width, height=height)
        arrows = tuple(replace(one, to_x=width) if one.to_x == self.width else one for one in self.arrows)
        return replace(self, width=width, height=height, boxes=(outer, *self.boxes[1:]), arrows=arrows)

    def combine(self, other: Drawing) -> Drawing:
        """Both, where the other has been moved to; the size is this one's."""
        boxes, notes, arrows = self.boxes + other.boxes, self.notes + other.notes, self.arrows + other.arrows
        return replace(self, boxes=boxes, notes=notes, arrows=arrows)


@dataclass(frozen=True)
class _Row:
    """A part among its neighbours: its drawing, what it takes, what it gives, and whether the one above feeds it."""

    drawing: Drawing
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    fed: bool


def draw(report: Report) -> Drawing:
    """Where everything stands: the data set, where there is one, above the model."""
    children: dict[str, list[Port]] = {}
    paths = {port.path for port in report.ports}
    for port in report.ports:
        children.setdefault(_find_parent(port.path, paths), []).append(port)
    model = _draw_box(children[""][0], children, report)
    x = (f"x {report.x}",)
    if report.plan.data is None:
        return _draw_column([_Row(model, (), (), False)])
    data = _draw_leaf("data", (f"data: {report.plan.data.part.name}",))
    return _draw_column([_Row(data, (), (), False), _Row(model, x, (), True)])


def find_owner(report: Report, path: str) -> str | None:
    """The name of the player that trains the part at a path, if one does."""
    attribute = path.partition(".")[2]
    found = [
        (len(module), player.name)
        for player in report.players
        for module in player.modules
        if f"{attribute}.".replace("[", ".[").startswith(f"{module}.".replace("[", ".["))
    ]
    return max(found)[1] if found else None


def _draw_box(port: Port, children: Mapping[str, Sequence[Port]], report: Report) -> Drawing:
    """A part with all that is in it."""
    slot = port.path.removeprefix(_find_parent(port.path, {other.path for other in report.ports})).removeprefix(".")
    lines = [f"{slot}: {port.name}"]
    if port.parameters:
        lines.append(f"{port.parameters:,} parameters")
    if port.path in report.unchecked:
        lines.append("unchecked")
    inside = children.get(port.path, [])
    if not inside:
        return _draw_leaf(port.path, tuple(lines))
    flow = [one for one in inside if one.told or one.parameters or children.get(one.path)]
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
    """A box around rows of parts and, below them, small ones."""
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
    """Rows one below the other, all as wide as the widest, arrows and their words between and beside them."""
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
    """Small boxes in rows."""
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
    """In the order in which they were built, but that what a part feeds follows it."""
    ordered: list[Port] = []
    for port in ports:
        source = _find_source(port, ports, report)
        ordered.insert(ordered.index(source) + 1 if source in ordered else len(ordered), port)
    return ordered


def _find_source(port: Port, ports: Sequence[Port], report: Report) -> Port | None:
    """The one of these that feeds a part."""
    words = report.sources.get(port.path, "").split()
    return next((one for one in ports if one.path in words), None)


def _list_inputs(port: Port) -> tuple[str, ...]:
    return tuple(f"{name} {type}" for name, type in port.told.items() if name != _ASKED.get(port.kind))


def _find_parent(path: str, paths: set[str]) -> str:
    """The path of the part that holds this one; empty of the outermost."""
    return max((other for other in paths if path.startswith(f"{other}.")), key=len, default="")


def _measure_gutter(lines: tuple[str, ...]) -> float:
    return max(_ARROW, _measure(lines)[0] + 2 * _PAD)


def _measure(lines: tuple[str, ...]) -> tuple[float, float]:
    return max((len(line) for line in lines), default=0) * LETTER, len(lines) * LINE


def _add(drawn: Drawing, note: Note, arrow: Arrow) -> Drawing:
    return replace(drawn, notes=(*drawn.notes, note), arrows=(*drawn.arrows, arrow))
