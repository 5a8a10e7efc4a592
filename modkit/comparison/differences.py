"""Differences between resolved specs: every path that differs, or rows gathered by part for a reader.

Where a slot holds different parts, one row shows them with their own parameters; where all specs hold the same part,
each parameter that differs has a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from modkit.building.difference import ABSENT, compare_trees, is_same
from modkit.errors import join
from modkit.specs.node import Node, Path, Value

__all__ = ["gather_rows", "list_leaves"]


def list_leaves(trees: Sequence[Node]) -> dict[str, tuple[Value, ...]]:
    """Lists the plain values that differ, by path; None if a spec lacks the path."""
    leaves = [dict(_walk_leaves(tree, ())) for tree in trees]
    paths = dict.fromkeys(path for one in leaves for path in one)
    table = {path: tuple(one.get(path) for one in leaves) for path in paths}
    return {join(path): values for path, values in table.items() if not is_same(values)}


def gather_rows(trees: Sequence[Node]) -> list[tuple[str, tuple[Value, ...]]]:
    """Gathers what differs by part, outermost first: the value of each spec by path, None if it lacks the path.

    A part is shown without the parts in its slots, which have rows of their own.
    """
    return [
        (join(path), tuple(None if value is ABSENT else value for value in values))
        for path, values in _gather(trees, ())
    ]


def _gather(values: Sequence[Value], path: Path) -> Iterator[tuple[Path, tuple[Value, ...]]]:
    for place, found in compare_trees(values, path):
        nodes = [value for value in found if isinstance(value, Node)]
        if not nodes or len(nodes) < sum(value is not ABSENT for value in found):
            yield place, found
            continue
        keys = dict.fromkeys(key for node in nodes for key in node if key != "use")
        if any(node.use is not None for node in nodes):
            yield place, tuple(_drop_slots(value) if isinstance(value, Node) else value for value in found)
            keys = {key: None for key in keys if any(_holds_part(node.get(key)) for node in nodes)}
        for key in keys:
            below = [value.get(key, ABSENT) if isinstance(value, Node) else ABSENT for value in found]
            yield from _gather(below, (*place, key))


def _drop_slots(node: Node) -> Node:
    return Node({key: value for key, value in node.items() if not _holds_part(value)})


def _holds_part(value: Value) -> bool:
    if isinstance(value, Node):
        return value.use is not None or any(map(_holds_part, value.values()))
    return isinstance(value, tuple) and any(map(_holds_part, value))


def _walk_leaves(value: Value, path: Path) -> Iterator[tuple[Path, Value]]:
    if isinstance(value, Node):
        for key, item in value.items():
            yield from _walk_leaves(item, (*path, key))
    elif isinstance(value, tuple) and any(isinstance(item, Node) for item in value):
        for index, item in enumerate(value):
            yield from _walk_leaves(item, (*path, index))
    else:
        yield path, value
