"""Calls: the parts of a spec with their arguments, checked and complete, before anything is built.

A call waits to be told its types by the builder; written down again it is the resolved spec's node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from modkit.part import Local, Part
from modkit.specs.node import Node, Value

__all__ = ["LOCAL", "Argument", "Call", "Given", "Record", "Ref", "Trained", "reroot", "written_record"]

LOCAL = "local:"
"""What a resolved spec puts before the name of a part that Python gave as an object."""


@dataclass(frozen=True)
class Trained:
    """A piece of another run: its weights start a part, which stays frozen unless it is trained on.

    Args:
        path: The run's directory, as written.
        at: Path of the piece in that run's spec.
        train: Whether it has players here.
    """

    path: str
    at: str
    train: bool


@dataclass(frozen=True)
class Call:
    """A part and its arguments, waiting to be told its types.

    Args:
        path: Where it stands in the spec.
        part: The part.
        arguments: What it is given, defaults included.
        takes: Which of the types that its kind is given it declares.
        trained: The run that its weights are from, or None.
        blank: The arguments that are None where nothing is written.
        given: The part itself, where Python gave a built one.
    """

    path: str
    part: Part
    arguments: Mapping[str, Argument]
    takes: frozenset[str]
    trained: Trained | None = None
    blank: frozenset[str] = frozenset()
    given: Given | None = None

    def node(self) -> Node:
        """The node that gives this call, everything written out."""
        use = f"{LOCAL}{self.part.target}" if isinstance(self.part, Local) else self.part.name
        told = {name: v for name, v in self.arguments.items() if v is not None or name not in self.blank}
        inner = Node({"use": use, **{name: _written(value) for name, value in told.items()}})
        if self.trained is None:
            return inner
        source = {"path": self.trained.path, "at": self.trained.at, "train": self.trained.train}
        return Node({"use": "run", **source, "part": inner})


@dataclass(frozen=True)
class Ref:
    """The part that is built at another place."""

    path: str
    target: str


@dataclass(frozen=True)
class Record:
    """A group of settings."""

    type: type[Any]
    arguments: Mapping[str, Argument]


Argument: TypeAlias = "Value | Call | Ref | Record | list[Argument] | dict[str, Argument]"


class Given:
    """A part that Python gives, where a spec's tree names one: a built module, a composed model, or a factory.

    Args:
        value: The part, or what makes it.
        make: Whether `value` is a factory, to be called with all types that the slot provides.
    """

    def __init__(self, value: Any, *, make: bool = False) -> None:
        self.value, self.make = value, make
        owner = value if make and hasattr(value, "__qualname__") else type(value)
        self.__module__, self.__qualname__ = owner.__module__, owner.__qualname__

    def __call__(self, **types: Any) -> Any:
        """The part."""
        return self.value(**types) if self.make else self.value

    def __deepcopy__(self, memo: dict[int, Any]) -> Given:
        return self


def reroot(value: Any, old: str, new: str, *, refs: bool = True) -> Any:
    """A call, or what an argument holds, as it would stand at another path.

    Args:
        value: The call or argument.
        old: The path that it stands at.
        new: The path that it moves to.
        refs: Whether references move along; otherwise they lead where they led before.
    """
    if isinstance(value, Call):
        arguments = {name: reroot(argument, old, new, refs=refs) for name, argument in value.arguments.items()}
        return replace(value, path=new + value.path.removeprefix(old), arguments=arguments)
    if isinstance(value, Ref):
        goal = new + value.target.removeprefix(old) if refs else value.target
        return Ref(new + value.path.removeprefix(old), goal)
    if isinstance(value, Mapping) and not isinstance(value, Node):
        return {key: reroot(item, old, new, refs=refs) for key, item in value.items()}
    return [reroot(item, old, new, refs=refs) for item in value] if isinstance(value, list) else value


def written_record(record: Record) -> dict[str, Any]:
    """A group of settings as a spec holds it, everything written out."""
    return {name: _written(value) for name, value in record.arguments.items() if value is not None}


def _written(value: Argument) -> Any:
    if isinstance(value, Call):
        return value.node()
    if isinstance(value, Ref):
        return Node({"ref": value.target})
    if isinstance(value, Record):
        return written_record(value)
    if isinstance(value, list | tuple):
        return [_written(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _written(item) for key, item in value.items()}
    return value
