"""A part: a typed callable with a one-line declaration.

A part is an ordinary class or function. Nothing is inherited, decorated or registered at import: a package lists its
parts in one torch-free module behind an entry point of the group `modkit`, and the target is imported when the part is
built or described, never to list it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pluggy

__all__ = ["Part", "hookimpl"]

hookimpl = pluggy.HookimplMarker("modkit")


@dataclass(frozen=True)
class Part:
    """The declaration of a part.

    Args:
        kind: One of `modkit.kinds.KINDS`.
        name: Its name within the kind; the registry puts a plug-in's name before it (`acme/fsq`).
        target: `"module.path:Name"` of a factory: called with the types its kind is given and the user's keywords, it
            returns the part.
        summary: One line for `modkit list`.
        aliases: Former names, which go on working.
    """

    kind: str
    name: str
    target: str
    summary: str
    aliases: tuple[str, ...] = ()

    def load(self) -> Callable[..., Any]:
        """Imports the target and returns it.

        Raises:
            ValueError: If the target is not of the form `module.path:Name`, or the module has no such name.
            ImportError: If the module cannot be imported.
        """
        module, _, name = self.target.partition(":")
        if not module or not name:
            raise ValueError(f"part {self.kind} {self.name} expects a target 'module.path:Name', got {self.target!r}")
        value: Any = importlib.import_module(module)
        for attribute in name.split("."):
            if not hasattr(value, attribute):
                raise ValueError(f"part {self.kind} {self.name}: module {module} has no {name!r}")
            value = getattr(value, attribute)
        if not callable(value):
            raise ValueError(f"part {self.kind} {self.name} expects a callable target, got {value!r}")
        return value  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
