"""Differences: the paths at which specs differ, one by one and, to be read, gathered by part.

Where a slot holds different parts a row shows each with the parameters that it has; where it holds the same part in
all, a row for each parameter that differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from modkit.errors import join
from modkit.specs.node import Node, Value
from modkit.specs.tree import Path

__all__ = ["Cell", "Row", "differing", "rows", "written"]


class Cell(NamedTuple):
    """What stands at a path: a part's name, or None, and plain values as text; both empty where nothing does."""

    part: str | None = None
    text: str = ""


class Row(NamedTuple):
    """A path and what stands there in each spec."""

    path: str
    cells: tuple[Cell, ...]


def differing(trees: Sequence[Node]) -> dict[str, tuple[Value, ...]]:
    """The plain values that differ, by path, None where there is none.

    Args:
        trees: Resolved specs (`modkit.building.plan.Plan.resolved`), in which nothing is None.
    """
    leaves = [dict(_leaves(tree, ())) for tree in trees]
    paths = dict.fromkeys(path for one in leaves for path in one)
    table = {path: tuple(one.get(path) for one in leaves) for path in paths}
    return {join(path): values for path, values in table.items() if not _equal(values)}


def rows(trees: Sequence[Node]) -> list[Row]:
    """What differs, gathered by part, outermost first."""
    return list(_rows(tuple(trees), ()))


def written(value: Value) -> str:
    """A value as one reads it: YAML without quotes."""
    if isinstance(value, Node):
        return "{" + ", ".join(f"{key}: {written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:g}" if isinstance(value, float) and abs(value - float(f"{value:g}")) == 0 else str(value)


def _leaves(value: Value, path: Path) -> Iterator[tuple[Path, Value]]:
    if isinstance(value, Node):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, tuple) and any(isinstance(item, Node) for item in value):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value


def _equal(values: Sequence[Value]) -> bool:
    return all(value == values[0] for value in values)


def _rows(values: Sequence[Value], path: Path) -> Iterator[Row]:
    if _equal(values):
        return
    nodes = [value for value in values if isinstance(value, Node)]
    plain = len(nodes) < sum(value is not None for value in values)
    parts = [node.use for node in nodes if node.use is not None]
    if plain or not nodes:
        yield Row(join(path), tuple(Cell(text=_lines(value)) for value in values))
        return
    below = list(dict.fromkeys(key for node in nodes for key in node if key != "use"))
    if parts and (len(set(parts)) > 1 or len(nodes) < len(values)):
        yield Row(join(path), tuple(_part(value) for value in values))
        below = [key for key in below if any(_holds_part(node.get(key)) for node in nodes)]
    for key in below:
        yield from _rows([value.get(key) if isinstance(value, Node) else None for value in values], (*path, key))


def _part(value: Value) -> Cell:
    """A part with its plain parameters."""
    if not isinstance(value, Node):
        return Cell()
    given = [f"{key} {written(item)}" for key, item in value.params.items() if not _holds_part(item)]
    return Cell(str(value.use), ", ".join(given))


def _holds_part(value: Value) -> bool:
    if isinstance(value, Node):
        return value.use is not None or any(map(_holds_part, value.values()))
    return isinstance(value, tuple) and any(map(_holds_part, value))


def _lines(value: Value) -> str:
    """A list of groups with a line each."""
    if isinstance(value, tuple) and value and all(isinstance(item, Node) for item in value):
        return "\n".join(written(item) for item in value)
    return "" if value is None else written(value)
