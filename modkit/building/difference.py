"""What two specs differ in by meaning: short forms and defaults written out, so that only what is built counts.

    differences(load_spec("a.yaml"), load_spec("b.yaml"))   ->   model.sampler: heun(steps=18) | ddim(steps=50)

Where two parts differ the whole of both is one difference; their parameters are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modkit.building.plan import plan
from modkit.errors import join
from modkit.specs.node import Node, Value
from modkit.specs.spec import Spec

__all__ = ["Difference", "compare_trees", "differences"]

_ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """A place where two specs differ.

    Args:
        path: The place.
        a: What stands there in the first, as one line; `absent` where nothing does.
        b: What stands there in the second.
    """

    path: str
    a: str
    b: str


def differences(a: Spec, b: Spec) -> list[Difference]:
    """What two specs differ in, in the order of the first; empty where they mean the same.

    Raises:
        SpecError: If one of them is wrong.
    """
    return compare_trees(plan(a).resolved.tree, plan(b).resolved.tree)


def compare_trees(a: Node, b: Node) -> list[Difference]:
    """What two resolved specs differ in, in the order of the first."""
    return list(_compared(a, b, ()))


def _compared(a: Value, b: Value, path: tuple[str | int, ...]) -> Iterator[Difference]:
    if isinstance(a, Node) and isinstance(b, Node) and a.get("use") == b.get("use"):
        for key in dict.fromkeys((*a, *b)):
            if key not in a or key not in b:
                yield _difference(a, b, path, key)
            else:
                yield from _compared(a[key], b[key], (*path, key))
    elif len(nodes := _nodes(a)) == len(others := _nodes(b)) > 0:
        for index, (one, other) in enumerate(zip(nodes, others)):
            yield from _compared(one, other, (*path, index))
    elif Node({"": a}) != Node({"": b}):
        yield Difference(join(path), _line(a), _line(b))


def _difference(a: Node, b: Node, path: tuple[str | int, ...], key: str) -> Difference:
    one, other = (_line(node[key]) if key in node else _ABSENT for node in (a, b))
    return Difference(join((*path, key)), one, other)


def _nodes(value: Value) -> list[Node]:
    """The mappings that a list is of, which are compared one by one; none where it holds anything else."""
    items = value if isinstance(value, tuple) else ()
    nodes = [item for item in items if isinstance(item, Node)]
    return nodes if len(nodes) == len(items) else []


def _line(value: Value) -> str:
    """A value as one line: `ddim(steps=50)`, `[1, 2]`, `{a: 1}`."""
    if isinstance(value, Node):
        inner = [f"{key}={_line(item)}" for key, item in value.params.items()]
        if "use" in value:
            return f"{value.use}({', '.join(inner)})" if inner else str(value.use)
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_line, value))}]"
    return str(value)
