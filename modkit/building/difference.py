"""The differences between two specs, with all short forms and defaults expanded, so that equal systems are equal.

    find_differences(load_spec("a.yaml"), load_spec("b.yaml"))   ->   model.sampler: heun(steps=18) | ddim(steps=50)

If a slot holds different parts, that is one difference; their parameters are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modkit.building.plan import plan
from modkit.errors import join
from modkit.specs.node import Node, Value
from modkit.specs.spec import Spec

__all__ = ["Difference", "compare_trees", "find_differences"]

_ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """A path at which two specs differ.

    Args:
        path: The path.
        a: The first spec's value on one line, or `absent`.
        b: The second spec's value.
    """

    path: str
    a: str
    b: str


def find_differences(a: Spec, b: Spec) -> list[Difference]:
    """Finds the differences between two specs, in the order of the first; empty if both describe the same system.

    Examples:
        >>> gan = Spec(model="gan", data="digits")
        >>> find_differences(gan, gan.with_value("model.z_dim", 8))
        [Difference(path='model.z_dim', a='64', b='8')]

    Raises:
        SpecError: If a spec is wrong.
    """
    return compare_trees(plan(a).resolved.tree, plan(b).resolved.tree)


def compare_trees(a: Node, b: Node) -> list[Difference]:
    """Finds the differences between the trees of two resolved specs, in the order of the first."""
    return list(_compare(a, b, ()))


def _compare(a: Value, b: Value, path: tuple[str | int, ...]) -> Iterator[Difference]:
    if isinstance(a, Node) and isinstance(b, Node) and a.get("use") == b.get("use"):
        for key in dict.fromkeys((*a, *b)):
            if key not in a or key not in b:
                yield _make_difference(a, b, path, key)
            else:
                yield from _compare(a[key], b[key], (*path, key))
    elif len(nodes := _list_nodes(a)) == len(others := _list_nodes(b)) > 0:
        for index, (one, other) in enumerate(zip(nodes, others)):
            yield from _compare(one, other, (*path, index))
    elif Node({"": a}) != Node({"": b}):
        yield Difference(join(path), _format_line(a), _format_line(b))


def _make_difference(a: Node, b: Node, path: tuple[str | int, ...], key: str) -> Difference:
    one, other = (_format_line(node[key]) if key in node else _ABSENT for node in (a, b))
    return Difference(join((*path, key)), one, other)


def _list_nodes(value: Value) -> list[Node]:
    """Returns the items of a list of mappings, which are compared one by one; empty for any other value."""
    items = value if isinstance(value, tuple) else ()
    nodes = [item for item in items if isinstance(item, Node)]
    return nodes if len(nodes) == len(items) else []


def _format_line(value: Value) -> str:
    """Formats a value on one line: `ddim(steps=50)`, `[1, 2]`, `{a: 1}`."""
    if isinstance(value, Node):
        inner = [f"{key}={_format_line(item)}" for key, item in value.params.items()]
        if "use" in value:
            return f"{value.use}({', '.join(inner)})" if inner else str(value.use)
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_format_line, value))}]"
    return str(value)
