"""Where specs differ in meaning: short forms and defaults are written out, so that only what is built counts.

    find_differences(load_spec("a.yaml"), load_spec("b.yaml"))   ->   model.sampler: heun(steps=18) | ddim(steps=50)

Where a slot holds different parts, both parts with all their parameters are one difference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from modkit.building.plan import plan
from modkit.errors import join
from modkit.specs.node import Node, Path, Value
from modkit.specs.spec import Spec

__all__ = [
    "ABSENT",
    "Difference",
    "compare_pair",
    "compare_trees",
    "find_differences",
    "format_params",
    "format_value",
    "is_same",
]


class _Absent:
    def __str__(self) -> str:
        return "absent"


ABSENT: Any = _Absent()
"""Stands for the value at a path that a spec lacks."""


@dataclass(frozen=True)
class Difference:
    """A path at which two specs differ.

    Args:
        path: The path.
        a: The first spec's value there, on one line; `absent` if it has none.
        b: The second spec's value.
    """

    path: str
    a: str
    b: str


def find_differences(a: Spec, b: Spec) -> list[Difference]:
    """Lists where two specs differ, in the order of the first; empty if they mean the same.

    Raises:
        SpecError: If one of them is invalid.
    """
    return compare_pair(plan(a).resolved.tree, plan(b).resolved.tree)


def compare_pair(a: Node, b: Node) -> list[Difference]:
    """Lists where two resolved specs differ, in the order of the first."""
    return [Difference(join(path), *map(format_value, values)) for path, values in compare_trees((a, b))]


def compare_trees(values: Sequence[Value], path: Path = ()) -> Iterator[tuple[Path, tuple[Value, ...]]]:
    """Yields the outermost paths at which trees differ, each with the values there; `ABSENT` if a tree lacks the path.

    Mappings with equal `use` are compared key by key, lists of equally many mappings item by item.

    Args:
        values: Resolved specs (`modkit.building.plan.Plan.resolved`), or the values that they hold at `path`.
        path: The path of `values`.
    """
    nodes = [value for value in values if isinstance(value, Node)]
    if is_same(values):
        return
    if len(nodes) == len(values) and len({node.use for node in nodes}) == 1:
        for key in dict.fromkeys(key for node in nodes for key in node):
            yield from compare_trees([node.get(key, ABSENT) for node in nodes], (*path, key))
    elif all(map(_is_list_of_nodes, values)) and len({len(value) for value in values if isinstance(value, tuple)}) == 1:
        for index, items in enumerate(zip(*(value for value in values if isinstance(value, tuple)))):
            yield from compare_trees(items, (*path, index))
    else:
        yield path, tuple(values)


def is_same(values: Sequence[Value]) -> bool:
    """Tells whether values are equal in type too: `1`, `1.0` and `True` differ."""
    return len({value if value is ABSENT else Node({"": value}) for value in values}) == 1


def format_value(value: Value) -> str:
    """Formats a value on one line, like YAML.

    Examples:
        >>> format_value(Node({"use": "ddim", "steps": 50, "eta": 0.0}))
        'ddim(steps=50, eta=0.0)'
        >>> [format_value(value) for value in ((1, 2), Node({"a": True}), None, ABSENT)]
        ['[1, 2]', '{a: true}', 'null', 'absent']
    """
    if isinstance(value, Node):
        if "use" in value:
            params = format_params(value)
            return f"{value.use}({params})" if params else str(value.use)
        return "{" + ", ".join(f"{key}: {format_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(format_value, value))}]"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def format_params(node: Node) -> str:
    """Formats a part's parameters: `steps=50, eta=0.0`."""
    return ", ".join(f"{key}={format_value(item)}" for key, item in node.params.items())


def _is_list_of_nodes(value: Value) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(item, Node) for item in value)
