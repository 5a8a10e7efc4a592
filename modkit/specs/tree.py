"""Places in a tree: finding what stands at a path, and putting something there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from modkit.errors import Position, Problem, SpecError, join, suggest
from modkit.specs.node import Node, Value, describe

__all__ = ["Path", "get_value", "replace_value", "make_path_error", "walk"]

Path: TypeAlias = "tuple[str | int, ...]"


def walk(tree: Node) -> Iterator[tuple[Path, Value]]:
    """Every value inside a node with its path, parents first."""
    trail: list[tuple[Path, Value]] = [((), tree)]
    while trail:
        path, value = trail.pop()
        if path:
            yield path, value
        if isinstance(value, Node):
            trail.extend(((*path, key), value[key]) for key in reversed(list(value)))
        elif isinstance(value, tuple):
            trail.extend(((*path, index), value[index]) for index in reversed(range(len(value))))


def get_value(tree: Value, path: Path, position: Position | None = None, referrer: str = "") -> Value:
    """The value at a path.

    Args:
        tree: Where the path starts.
        path: The path.
        position: Where the path was written.
        referrer: Path of what asked for it, to be blamed.

    Raises:
        SpecError: If there is none, with the nearest names.
    """
    for depth, part in enumerate(path):
        choices: Iterable[str] = ()
        if isinstance(tree, Node):
            if isinstance(part, str) and part in tree:
                tree = tree[part]
                continue
            choices = tree
        elif isinstance(tree, tuple):
            if isinstance(part, int) and part < len(tree):
                tree = tree[part]
                continue
            choices = (f"[{index}]" for index in range(min(len(tree), 20)))
        raise make_path_error(path[: depth + 1], choices, position, referrer)
    return tree


def replace_value(tree: Value, path: Path, value: Value, position: Position | None = None, depth: int = 0) -> Value:
    """A tree with a value at a path; mappings absent on the way are made, and a part's bare name becomes a node.

    Raises:
        SpecError: If the path leads through anything else, or to an item that a list has not.
    """
    if depth == len(path):
        return value
    part = path[depth]
    if isinstance(part, int):
        if not isinstance(tree, tuple) or part >= len(tree):
            has = f"a list of {len(tree)}" if isinstance(tree, tuple) else describe(tree)
            raise SpecError(Problem(join(path[: depth + 1]), f"got an index into {has}, expected one it has", position))
        return (*tree[:part], replace_value(tree[part], path, value, position, depth + 1), *tree[part + 1 :])
    node = Node({}) if tree is None else Node({"use": tree}) if isinstance(tree, str) else tree
    if not isinstance(node, Node):
        message = f"got {describe(tree)}, expected a mapping to hold {part!r}"
        raise SpecError(Problem(join(path[:depth]), message, position))
    if node.ref is not None:
        message = f"got a reference to {node.ref}, expected {part!r} to be set there"
        raise SpecError(Problem(join(path[:depth]), message, position))
    return Node({**node, part: replace_value(node.get(part), path, value, position, depth + 1)})


def make_path_error(path: Path, choices: Iterable[str], position: Position | None, referrer: str = "") -> SpecError:
    """The error for a path whose last part is none of the choices."""
    choices = list(choices)
    listed = f"one of {', '.join(choices[:20])}" if choices else "a path that exists"
    got = f"got {join(path)}, which is not there" if referrer else "got a path that is not there"
    hint = suggest(str(path[-1]), choices)
    return SpecError(Problem(referrer or join(path), f"{got}, expected {listed}", position, hint))
