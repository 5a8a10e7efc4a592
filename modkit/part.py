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

__all__ = ["Part", "hookimpl", "import_target"]

hookimpl = pluggy.HookimplMarker("modkit")


@dataclass(frozen=True)
class Part:
    """The declaration of a part.

    A part whose configuration or weights stand elsewhere may say more. `target.expand_params(params)`, a static method, is
    told the keywords that a spec writes and gives those that they stand for: of a pretrained folder, the configuration
    in it. A run's resolved spec holds the answer, so that it needs the folder no more. `part.load_pretrained()` is
    called on a module that is to be trained or sampled as it is, and not where a run's own weights follow.

    Args:
        kind: One of `modkit.kinds.KINDS`.
        name: Its name within the kind; the registry puts a plug-in's name before it (`acme/fsq`).
        target: `"module.path:Name"` of a factory: called with the types its kind is given and the user's keywords, it
            returns the part.
        summary: One line for `modkit list`.
        aliases: Former names, which go on working.
        migrate: `"module.path:function"` that turns what an older version made into what this one understands:
            `migrate(params, state, version) -> (params, state)`, see `modkit.building.migration`.
    """

    kind: str
    name: str
    target: str
    summary: str
    aliases: tuple[str, ...] = ()
    migrate: str | None = None

    def load(self) -> Callable[..., Any]:
        """Imports the target and returns it.

        Raises:
            ValueError: If the target is not of the form `module.path:Name`, or the module has no such name.
            ImportError: If the module cannot be imported.
        """
        return import_target(self.target, f"part {self}")

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def import_target(target: str, owner: str) -> Callable[..., Any]:
    """What stands at `"module.path:Name"`, imported.

    Args:
        target: Where it stands.
        owner: Who names it, for an error: `part sampler ddim`.

    Raises:
        ValueError: If the target is not of that form, the module has no such name, or it is not callable.
        ImportError: If the module cannot be imported.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise ValueError(f"{owner} expects a target 'module.path:Name', got {target!r}")
    value: Any = importlib.import_module(module)
    for attribute in name.split("."):
        if not hasattr(value, attribute):
            raise ValueError(f"{owner}: module {module} has no {name!r}")
        value = getattr(value, attribute)
    if not callable(value):
        raise ValueError(f"{owner} expects a callable target, got {value!r}")
    return value  # type: ignore[no-any-return]
