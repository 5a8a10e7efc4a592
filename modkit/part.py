"""A part: a typed callable with a one-line declaration.

A part is an ordinary class or function: it inherits nothing, is not decorated and does not register itself when it is
imported. A package lists its parts in one torch-free module behind an entry point of the group `modkit`. A part's
target is imported when the part is built or described, never to list it.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

import pluggy

from modkit.errors import describe_exception

__all__ = [
    "HERE",
    "Local",
    "Part",
    "Registered",
    "format_target",
    "hookimpl",
    "import_object",
    "import_target",
    "locate_target",
]

HERE = "this process"
"""What stands in place of a distribution for parts that a process has registered itself (`modkit.register`)."""
hookimpl = pluggy.HookimplMarker("modkit")
"""Marks a function as a plug-in's implementation of the hook of its name, as in `@modkit.hookimpl`."""


@dataclass(frozen=True)
class Part:
    """The declaration of a part.

    `modkit.kinds.PretrainedExtras` lists further members of parts whose configuration or weights are stored elsewhere.
    A target may have members of `modkit.kinds.ImpliedExtras`, which fill slots next to its own.

    Args:
        kind: One of `modkit.kinds.KINDS`, or of a plug-in (`acme/layout`).
        name: Its name within the kind. The registry prefixes the plug-in's name (`acme/fsq`).
        target: `"module.path:Name"` of a class or function that returns the part when it is called with the types that
            the kind provides and the user's parameters.
        summary: One line for `modkit list`.
        aliases: Former names, which remain valid.
        migrate: `"module.path:function"` of a function that updates the parameters and weights of runs made with an
            older version: `migrate(params, state, version) -> (params, state)`, see `modkit.building.migration`.
        earlier: Parameters that were added later, or whose default was None, with the values that do what the part did
            before: runs whose specs lack them are loaded with these in place of the defaults.
        renamed: Former names of parameters, each with its present name. Specs, overrides and runs may have either; the
            weights of a part in a renamed slot follow it.

    Examples:
        >>> part = Part("schedule", "cosine", "modkit.diffusion.schedules:Cosine", "Squared cosine")
        >>> str(part)
        'schedule cosine'
        >>> part.load()().num
        1000
    """

    kind: str
    name: str
    target: str
    summary: str
    aliases: tuple[str, ...] = ()
    migrate: str | None = None
    earlier: Mapping[str, Any] = field(default_factory=dict, hash=False)
    renamed: Mapping[str, str] = field(default_factory=dict, hash=False)

    def load(self) -> Callable[..., Any]:
        """Imports and returns the target.

        Raises:
            ValueError: If the target is not of the form `module.path:Name`, the module has no such name, or it is not
                callable.
            ImportError: If the module cannot be imported, whatever it raises; the message names the part.
        """
        return import_target(self.target, f"part {self}")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Registered(Part):
    """A class or function that is there already: nothing is imported."""

    object: Callable[..., Any] | None = None

    def load(self) -> Callable[..., Any]:
        """Returns the class or function.

        Raises:
            ValueError: If the declaration holds none.
        """
        if self.object is None:
            raise ValueError(f"{self} expects a class or function as `object`, got None")
        return self.object


class Local(Registered):
    """A class or function passed from Python that has no name in a spec."""

    @classmethod
    def wrap(cls, kind: str, part: Callable[..., Any]) -> Local:
        """Declares a class or function as a part of a kind."""
        return cls(kind, getattr(part, "__name__", type(part).__name__), format_target(part), "", object=part)


def format_target(part: Callable[..., Any]) -> str:
    """Returns where a class or function is defined, as `module:qualname`."""
    return f"{getattr(part, '__module__', '?')}:{getattr(part, '__qualname__', type(part).__name__)}"


def import_target(target: str, owner: str) -> Callable[..., Any]:
    """Imports the class or function that `"module.path:Name"` names.

    Args:
        target: The name.
        owner: What declares it, for error messages: `part sampler ddim`.

    Examples:
        >>> import_target("math:sqrt", "example")(4)
        2.0

    Raises:
        ValueError: If the target is not of that form, the module has no such name, or it is not callable.
        ImportError: If the module cannot be imported, see `import_object`.
    """
    value = import_object(target, owner)
    if not callable(value):
        raise ValueError(f"{owner} expects a callable target, got {value!r}")
    return value


def import_object(target: str, owner: str) -> Any:
    """Imports what `"module.path:Name"` names.

    Args:
        target: The name.
        owner: What declares it, for error messages: `kind acme/layout`.

    Raises:
        ValueError: If the target is not of that form, or the module has no such name.
        ImportError: If the module cannot be imported, whatever it raises: a plug-in's module may have any defect, and
            even one that exits must not end the program.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise ValueError(f"{owner} expects a target 'module.path:Name', got {target!r}")
    try:
        value: Any = importlib.import_module(module)
        for attribute in name.split("."):
            value = getattr(value, attribute, MISSING)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ImportError(f"{owner} cannot be imported: {describe_exception(error)}") from error
    if value is MISSING:
        raise ValueError(f"{owner}: module {module} has no {name!r}")
    return value


def locate_target(target: str) -> str | None:
    """Returns where the object of a target is defined, or None if its module is not imported yet."""
    module, _, name = target.partition(":")
    value: Any = sys.modules.get(module)
    for attribute in name.split("."):
        value = getattr(value, attribute, None)
    return f"{getattr(value, '__module__', None)}:{getattr(value, '__qualname__', None)}"
