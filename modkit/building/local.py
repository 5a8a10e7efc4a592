"""Local parts: classes, functions and objects from Python, which no name loads.

A tree holds a class or function in a part's `use`, and an object as `Given`. A resolved spec names both by `local:`.
"""

from __future__ import annotations

import copy
from typing import Any

from modkit.kinds import ImpliedExtras, read_extras
from modkit.specs.node import Node, walk

__all__ = ["LOCAL", "Given", "list_local"]

LOCAL = "local:"
"""Prefix, in a resolved spec, of the name of a part that was given as a Python object."""


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


def list_local(tree: Node) -> list[str]:
    """Lists the parts in a node of a resolved spec that were given as Python objects, so that no name loads them."""
    names = (value.use for _, value in [((), tree), *walk(tree)] if isinstance(value, Node))
    return [name.removeprefix(LOCAL) for name in names if isinstance(name, str) and name.startswith(LOCAL)]
