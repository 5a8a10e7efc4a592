"""Nodes: the frozen mappings of plain data that make up the trees of specs, and the paths in such a tree.

A node's key `use` names a part, and its other keys are the part's parameters. Without `use`, a node stands for the
slot's default part, or is a plain mapping.

A resolved spec writes a piece of another run out in its `part`. A path leads through it to what is inside the piece, as
in `model.autoencoder.encoder`; the keys of the piece itself (`path`, `at`, `train`, `part`) come first.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

from modkit.errors import Position, Problem, SpecError, join, shorten, suggest
from modkit.part import format_target
from modkit.specs.yaml import MAX_DEPTH, MAX_KEY, check_scalar

__all__ = [
    *("Node", "Path", "Value", "describe", "find_value", "find_written", "freeze", "get_value", "make_path_error"),
    *("name_part", "open_piece", "rebuild", "replace_value", "strip_parts", "suggest_place", "thaw", "use", "walk"),
]

Path: TypeAlias = "tuple[str | int, ...]"
Value: TypeAlias = "None | bool | int | float | str | Callable[..., Any] | tuple[Value, ...] | Node"
"""What a tree holds. Only the key `use` may hold a class or function, and only in Python."""


_COMPOSE = (
    "a spec holds no built objects; to put one into a slot, call the Model's class, as in modkit.models.Latent(x, "
    "prior=module), and train it by modkit.fit: see the tutorial Compose in Python, docs/tutorials/compose-in-python.md"
)


class Node(Mapping[str, Value]):
    """A frozen mapping of plain data: lists become tuples, and mappings become nodes.

    Two nodes are equal if they hold equal values under the same keys, in any order; `1`, `1.0` and `True` differ.

    Args:
        items: The keys and values.

    Examples:
        >>> node = Node({"use": "unet", "channels": [32, 64]})
        >>> node.use, node["channels"], node.params
        ('unet', (32, 64), {'channels': (32, 64)})

    Raises:
        SpecError: If a value is not plain data.
    """

    __slots__ = ("_identity", "_items")
    _items: dict[str, Value]
    _identity: frozenset[tuple[str, Any]]

    def __init__(self, items: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_items", _freeze_items(items, (), 1))
        identity = frozenset((key, _identify(value)) for key, value in self._items.items())
        object.__setattr__(self, "_identity", identity)

    @property
    def use(self) -> str | Callable[..., Any] | None:
        """The part's name, or a class or function that is not registered; None for the slot's default part."""
        value = self._items.get("use")
        return value if isinstance(value, str) or callable(value) else None

    @property
    def params(self) -> dict[str, Value]:
        """Everything but `use`."""
        return {key: value for key, value in self._items.items() if key != "use"}

    @property
    def ref(self) -> str | None:
        """The path that this node refers to, if it is exactly `{ref: path}`."""
        value = self._items.get("ref")
        return value if isinstance(value, str) and len(self) == 1 else None

    def __getitem__(self, key: str) -> Value:
        return self._items[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Node):
            return self._identity == other._identity
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            return self == Node(other)
        except SpecError:
            return False

    def __hash__(self) -> int:
        return hash(self._identity)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"Node is frozen, got an assignment to {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"Node is frozen, got a deletion of {name!r}")

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Node:
        copied = {key: copy.deepcopy(value, memo) for key, value in self._items.items()}
        return self if all(copied[key] is value for key, value in self._items.items()) else Node(copied)

    def __reduce__(self) -> tuple[type[Node], tuple[dict[str, Value]]]:
        return Node, (self._items,)

    def __repr__(self) -> str:
        if self.use is None:
            return repr(self._items)
        name = self.use if isinstance(self.use, str) else format_target(self.use)
        arguments = [repr(name)]
        arguments += [f"{key}={value!r}" for key, value in self.params.items() if key.isidentifier()]
        odd = {key: value for key, value in self.params.items() if not key.isidentifier()}
        return f"use({', '.join([*arguments, f'**{odd!r}'] if odd else arguments)})"


def use(part: str | Callable[..., Any], /, **params: Any) -> Node:
    """Describes a part with its parameters, as a spec holds it.

    A spec holds plain data. Objects such as modules compose by calling the Model's class instead:
    `modkit.models.Latent(x, prior=module)`.

    Args:
        part: The part's name, class or function. A registered class is recorded by its name. A spec that holds an
            unregistered one cannot be written to YAML.
        **params: The part's parameters: plain data, and nodes of the parts in its slots.

    Examples:
        >>> use("diffusion", network=use("mlp", width=64))
        use('diffusion', network=use('mlp', width=64))

    Raises:
        SpecError: If `part` is something else, or a parameter is not plain data.
    """
    if "use" in params:
        raise SpecError(Problem("use", f"got {params['use']!r} as a parameter, expected the part as first argument"))
    if isinstance(part, type) or inspect.isroutine(part):
        part = name_part(part)
    elif not isinstance(part, str):
        raise _refuse_part(part, "use")
    return Node({"use": part, **params})


def freeze(value: Any, path: Path = (), depth: int = 1) -> Value:
    """Makes plain data immutable: lists become tuples, and mappings become nodes.

    Args:
        value: The data.
        path: Its path, for error messages.
        depth: How deep it is nested itself.

    Raises:
        SpecError: If the value holds anything else or is nested too deep.
    """
    if isinstance(value, Node) or value is None or isinstance(value, bool):
        return value
    if depth > MAX_DEPTH:
        raise SpecError(Problem(join(path[:4]) + "…", f"got more than {MAX_DEPTH} levels of nesting, expected fewer"))
    if isinstance(value, Mapping):
        return Node(_freeze_items(value, path, depth))
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item, (*path, index), depth + 1) for index, item in enumerate(value))
    for plain in (int, float, str):
        if isinstance(value, plain):
            return _check(plain(value), path)
    expected = "plain data (None, bool, int, float, str, lists and dicts of them)"
    raise SpecError(Problem(join(path), f"got {describe(value)}, expected {expected}", hint=suggest_place(value)))


def thaw(value: Value) -> Any:
    """Makes lists and dicts of plain data again; the inverse of `freeze`."""
    if isinstance(value, Node):
        return {key: thaw(item) for key, item in value.items()}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


def _freeze_items(items: Mapping[str, Any], path: Path, depth: int) -> dict[str, Value]:
    result: dict[str, Value] = {}
    for key, value in items.items():
        if not isinstance(key, str) or len(key) > MAX_KEY:
            message = f"got the key {describe(key)}, expected a string of at most {MAX_KEY} characters"
            raise SpecError(Problem(join(path), message))
        key = str(_check(str(key), path))
        if key == "use" and callable(value) and not hasattr(value, "__qualname__"):
            raise _refuse_part(value, join((*path, key)))
        result[key] = value if key == "use" and callable(value) else freeze(value, (*path, key), depth + 1)
    return result


def _refuse_part(value: object, path: str) -> SpecError:
    message = f"got {describe(value)}, expected a part's name, class or function"
    return SpecError(Problem(path, message, hint=suggest_place(value)))


def _check(value: int | float | str, path: Path) -> int | float | str:
    try:
        check_scalar(value)
    except ValueError as error:
        raise SpecError(Problem(join(path), str(error))) from None
    return value


def _identify(value: Value) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_identify, value))
    return value if isinstance(value, Node) else (type(value), value)


def name_part(part: Callable[..., Any]) -> str | Callable[..., Any]:
    """Returns the name of a class or function, or the object itself if no package has registered it."""
    from modkit.parts.registry import get_registry

    registered = get_registry().find_by_target(format_target(part))
    return part if registered is None else registered.name


def suggest_place(value: object) -> str | None:
    """Tells where an object that a spec cannot hold belongs; None for plain data."""
    if isinstance(value, type) or inspect.isroutine(value):
        return f"describe it by use({value.__name__}, …)"
    return None if value is None or isinstance(value, int | float | str | list | tuple | Mapping) else _COMPOSE


def describe(value: object) -> str:
    """Describes a value in a few words, for an error message."""
    if isinstance(value, Node) and isinstance(value.use, str):
        return f"a mapping that uses {value.use}"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "null" if value is None else shorten(" ".join(repr(value).split()))


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


def find_value(tree: Value, path: Path) -> Value:
    """Returns the value at a path, or None if the path does not exist."""
    try:
        return get_value(tree, path)
    except SpecError:
        return None


def open_piece(value: Value) -> Value:
    """Returns the part that a piece of another run is, where it is written out; any other value as it is."""
    return value["part"] if isinstance(value, Node) and value.use == "run" and "part" in value else value


def find_written(tree: Value, path: Path) -> Path:
    """Finds where a tree holds what is at a path: in `part` where a piece of another run is written out.

    Examples:
        >>> find_written(Node({"model": {"use": "run", "path": "runs/a", "part": {"use": "gan"}}}), ("model", "z_dim"))
        ('model', 'part', 'z_dim')
    """
    place: Path = ()
    for end in range(len(path) + 1):
        while (part := open_piece(tree)) is not tree:
            place, tree = (*place, "part"), part
        place, tree = (*place, *path[end : end + 1]), find_value(tree, path[end : end + 1])
    return place


def strip_parts(tree: Value, path: Path) -> Path:
    """Strips a path to where a tree holds something of the keys `part` of pieces of other runs.

    Examples:
        >>> tree = Node({"model": {"use": "run", "path": "runs/a", "part": {"use": "gan", "z_dim": 2}}})
        >>> strip_parts(tree, ("model", "part", "z_dim"))
        ('model', 'z_dim')
    """
    place: Path = ()
    for key in path:
        if key != "part" or open_piece(tree) is tree:
            place = (*place, key)
        tree = find_value(tree, (key,))
    return place


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

    Missing mappings along the path are created, and a part that is given only by its name becomes a node.

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
