"""Calls: the parts of a spec with their arguments, checked and complete, before anything is built.

The builder makes a part of a call and of the types that its slot provides. `Call.node` writes a call as the resolved
spec does.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from modkit.kinds import ImpliedExtras, read_extras
from modkit.part import Local, Part
from modkit.specs.node import Node, Value, walk

__all__ = [
    "LOCAL",
    "Argument",
    "Call",
    "Given",
    "Record",
    "Ref",
    "Trained",
    "extract",
    "list_calls",
    "list_local",
    "move",
    "reroot",
    "share",
    "write_record",
]

LOCAL = "local:"
"""Prefix, in a resolved spec, of the name of a part that was given as a Python object."""


@dataclass(frozen=True)
class Trained:
    """A piece of another run, whose weights initialise a part.

    Args:
        path: The run's directory, as written in the spec.
        at: Path of the piece in that run's spec.
        train: Whether the part is trained further; otherwise it is frozen.
    """

    path: str
    at: str
    train: bool


@dataclass(frozen=True)
class Call:
    """A part and its arguments.

    Args:
        path: Path in the spec.
        part: The part.
        arguments: The arguments, including defaults.
        takes: The types provided by the slot that the part declares as parameters.
        trained: The piece of a run that provides its weights, or None.
        blank: The arguments that a spec leaves out where they are None: those whose default is, without an `earlier`.
        given: The part as a Python object, or None.
    """

    path: str
    part: Part
    arguments: Mapping[str, Argument]
    takes: frozenset[str]
    trained: Trained | None = None
    blank: frozenset[str] = frozenset()
    given: Given | None = None

    def to_node(self) -> Node:
        """The spec node of this call, with every argument written out that is not blank."""
        use = f"{LOCAL}{self.part.target}" if isinstance(self.part, Local) else self.part.name
        told = {name: v for name, v in self.arguments.items() if v is not None or name not in self.blank}
        inner = Node({"use": use, **{name: _write(value) for name, value in told.items()}})
        if self.trained is None:
            return inner
        source = {"path": self.trained.path, "at": self.trained.at, "train": self.trained.train}
        return Node({"use": "run", **source, "part": inner})


@dataclass(frozen=True)
class Ref:
    """A reference to the part at another path."""

    path: str
    target: str


@dataclass(frozen=True)
class Record:
    """A group of settings."""

    type: type[Any]
    arguments: Mapping[str, Argument]


Argument: TypeAlias = "Value | Call | Ref | Record | list[Argument] | dict[str, Argument]"


class Given:
    """A part given as a Python object: a built module, a composed model, or a factory.

    Args:
        value: The part, or a factory of it.
        make: Whether `value` is a factory. It is called with every type that the slot provides.
    """

    def __init__(self, value: Any, *, make: bool = False) -> None:
        self.value, self.make = value, make
        owner = value if make and hasattr(value, "__qualname__") else type(value)
        self.__module__, self.__qualname__, self.__name__ = owner.__module__, owner.__qualname__, owner.__name__
        self.implies = read_extras(value if make else type(value), ImpliedExtras).implies

    def __call__(self, **types: Any) -> Any:
        """Returns the part."""
        return self.value(**types) if self.make else self.value

    def __deepcopy__(self, memo: dict[int, Any]) -> Given:
        """A copy of a model is composed of the copies that it holds; a factory makes another part each time."""
        return self if self.make else Given(copy.deepcopy(self.value, memo))


def reroot(value: Any, old: str, new: str, *, refs: bool = True) -> Any:
    """Moves a call, or the value of an argument, to another path.

    Args:
        value: The call or value.
        old: Its path.
        new: The new path.
        refs: Whether the targets of references inside it move as well.
    """
    if isinstance(value, Ref):
        goal = new + value.target.removeprefix(old) if refs else value.target
        return Ref(new + value.path.removeprefix(old), goal)
    moved = _change_items(value, lambda item: reroot(item, old, new, refs=refs))
    return replace(moved, path=new + moved.path.removeprefix(old)) if isinstance(moved, Call) else moved


def share(value: Any, places: Mapping[str, str]) -> Any:
    """Puts references in place of calls, whose parts are built elsewhere; those to what is inside them follow.

    Args:
        value: The call, or the value of an argument.
        places: The paths of these calls, each with that of its part. A call inside one of them becomes a reference too.
    """
    if isinstance(value, Call | Ref):
        aim = value.target if isinstance(value, Ref) else value.path
        if (goal := move(aim, places)) != aim:
            return Ref(value.path, goal)
        if isinstance(value, Ref):
            return value
    return _change_items(value, lambda item: share(item, places))


def move(path: str, places: Mapping[str, str]) -> str:
    """Moves a path that is one of `places`, or inside one of them, to where that is now."""
    found = (new + path.removeprefix(old) for old, new in places.items() if f"{path}.".startswith(f"{old}."))
    return next(found, path)


def extract(call: Call, calls: Mapping[str, Call], built: Mapping[str, Any]) -> tuple[Call, dict[str, str]]:
    """Extracts a call from its plan: where it refers to parts outside of it, it has these parts as objects.

    Args:
        call: The call.
        calls: All calls of the plan, by path.
        built: The parts that have been built, by path.

    Returns:
        The call, and the paths of the parts outside, each with that of its first reference, which has its place.
    """
    places: dict[str, str] = {}

    def change(value: Any) -> Any:
        if not isinstance(value, Ref) or f"{value.target}.".startswith(f"{call.path}."):
            return _change_items(value, change)
        if value.target in places:
            return Ref(value.path, places[value.target])
        places[value.target] = value.path
        moved = change(reroot(calls[value.target], value.target, value.path))
        return replace(moved, given=Given(built[value.target])) if value.target in built else moved

    return change(call), places


def list_calls(value: Any) -> Iterator[Call]:
    """Lists the calls inside a call or in the value of an argument, each before those that it is inside of."""
    for item in _list_items(value):
        yield from list_calls(item)
    if isinstance(value, Call):
        yield value


def list_local(tree: Node) -> list[str]:
    """Lists the parts in a node of a resolved spec that were given as Python objects, so that no name loads them."""
    names = (value.use for _, value in [((), tree), *walk(tree)] if isinstance(value, Node))
    return [name.removeprefix(LOCAL) for name in names if isinstance(name, str) and name.startswith(LOCAL)]


def write_record(record: Record) -> dict[str, Any]:
    """Writes a group of settings as a spec does, with every setting written out."""
    return {name: _write(value) for name, value in record.arguments.items() if value is not None}


def _list_items(value: Any) -> list[Any]:
    """Lists the arguments of a call or the items of a container."""
    if isinstance(value, Call | Record):
        return list(value.arguments.values())
    if isinstance(value, Mapping):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def _change_items(value: Any, change: Callable[[Any], Any]) -> Any:
    """Returns a call with changed arguments, or a container with changed items; anything else stays as it is."""
    if isinstance(value, Call | Record):
        return replace(value, arguments={name: change(argument) for name, argument in value.arguments.items()})
    if isinstance(value, Mapping) and not isinstance(value, Node):
        return {key: change(item) for key, item in value.items()}
    return [change(item) for item in value] if isinstance(value, list) else value


def _write(value: Argument) -> Any:
    if isinstance(value, Call):
        return value.to_node()
    if isinstance(value, Ref):
        return Node({"ref": value.target})
    if isinstance(value, Record):
        return write_record(value)
    if isinstance(value, list | tuple):
        return [_write(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _write(item) for key, item in value.items()}
    return value
