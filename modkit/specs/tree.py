"""Trees of a spec's nodes: walking through a tree, and getting and replacing the values at its paths.

A resolved spec writes a piece of another run out in its `part`. A path leads through it to what is inside the piece, as
in `model.autoencoder.encoder`; the keys of the piece itself (`path`, `at`, `train`, `part`) come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

from modkit.errors import Position, Problem, SpecError, join, suggest
from modkit.specs.node import Node, Value, describe

__all__ = [
    "Path",
    "find_written",
    "get_value",
    "make_path_error",
    "open_piece",
    "rebuild",
    "replace_value",
    "strip_parts",
    "walk",
]

Path: TypeAlias = "tuple[str | int, ...]"


def walk(tree: Node) -> Iterator[tuple[Path, Value]]:
    """Yields every value inside a node with its path, parents before their children."""
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
    """Returns the value at a path.

    Args:
        tree: Where the path starts.
        path: The path.
        position: Where the path was written, for the error.
        referrer: Path of the reference that holds it, for the error.

    Raises:
        SpecError: If the path does not exist; the error suggests the closest names.
    """
    for depth, part in enumerate(path):
        choices: Iterable[str] = ()
        if isinstance(tree, Node):
            tree = tree if part in tree else open_piece(tree)
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


def find_written(tree: Value, path: Path) -> Path:
    """Finds where a tree holds what is at a path: in `part` where a piece of another run is written out.

    Examples:
        >>> find_written(Node({"model": {"use": "run", "path": "runs/a", "part": {"use": "gan"}}}), ("model", "z_dim"))
        ('model', 'part', 'z_dim')
    """
    if (part := open_piece(tree)) is not tree:
        return "part", *find_written(part, path)
    try:
        return (path[0], *find_written(get_value(tree, path[:1]), path[1:])) if path else ()
    except SpecError:
        return path


def open_piece(value: Value) -> Value:
    """Returns the part that a piece of another run is, where it is written out; any other value as it is."""
    return value["part"] if isinstance(value, Node) and value.use == "run" and "part" in value else value


def strip_parts(tree: Value, path: Path) -> Path:
    """Strips a path to where a tree holds something of the keys `part` of pieces of other runs.

    Examples:
        >>> tree = Node({"model": {"use": "run", "path": "runs/a", "part": {"use": "gan", "z_dim": 2}}})
        >>> strip_parts(tree, ("model", "part", "z_dim"))
        ('model', 'z_dim')
    """
    if not path:
        return ()
    try:
        below = strip_parts(get_value(tree, path[:1]), path[1:])
    except SpecError:
        return path
    return below if path[0] == "part" and open_piece(tree) is not tree else (path[0], *below)


def rebuild(tree: Value, change: Callable[[Path, Value], Value], path: Path = ()) -> Any:
    """Returns a tree with each value replaced by the result of `change(path, value)`, parents before their children.

    Args:
        tree: The tree.
        change: Returns the value itself, or one to replace it. Values inside a returned node or list are changed next.
        path: Path of the tree itself.
    """
    value = change(path, tree)
    if isinstance(value, Node):
        return Node({key: rebuild(item, change, (*path, key)) for key, item in value.items()})
    if isinstance(value, tuple):
        return tuple(rebuild(item, change, (*path, index)) for index, item in enumerate(value))
    return value


def replace_value(tree: Value, path: Path, value: Value, position: Position | None = None, depth: int = 0) -> Value:
    """Returns a tree with another value at a path.

    Missing mappings along the path are created, and a part that is given by its name alone becomes a node.

    Raises:
        SpecError: If the path leads through a scalar or a reference, or to an item beyond the end of a list.
    """
    if depth == len(path):
        return value
    part = path[depth]
    if isinstance(part, int):
        if not isinstance(tree, tuple) or part >= len(tree):
            has = f"a list of {len(tree)}" if isinstance(tree, tuple) else describe(tree)
            message = f"got an index into {has}, expected an existing index"
            raise SpecError(Problem(join(path[: depth + 1]), message, position))
        return (*tree[:part], replace_value(tree[part], path, value, position, depth + 1), *tree[part + 1 :])
    node = Node({}) if tree is None else Node({"use": tree}) if isinstance(tree, str) else tree
    if not isinstance(node, Node):
        message = f"got {describe(tree)}, expected a mapping to hold {part!r}"
        raise SpecError(Problem(join(path[:depth]), message, position))
    if node.ref is not None:
        message = f"got a reference to {node.ref}; set {part!r} at that path instead"
        raise SpecError(Problem(join(path[:depth]), message, position))
    if part not in node and (inner := open_piece(node)) is not node:
        return Node({**node, "part": replace_value(inner, path, value, position, depth)})
    return Node({**node, part: replace_value(node.get(part), path, value, position, depth + 1)})


def make_path_error(path: Path, choices: Iterable[str], position: Position | None, referrer: str = "") -> SpecError:
    """Makes the error for a path whose last part is none of the choices."""
    choices = list(choices)
    listed = f"one of {', '.join(choices[:20])}" if choices else "a path that exists"
    got = f"got {join(path)}, which does not exist" if referrer else "got a path that does not exist"
    hint = suggest(str(path[-1]), choices)
    return SpecError(Problem(referrer or join(path), f"{got}, expected {listed}", position, hint))
