"""Discovery: the entry points behind which the installed distributions have their plug-ins, read but not loaded.

    [project.entry-points.modkit]
    acme = "acme.parts"                 the plug-in's name, and the module (or object) that implements the hooks

What is wrong with an entry point itself is its `flaw`: such a plug-in is never loaded.
"""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from modkit.parts.distributions import find_distributions, read_header

__all__ = ["GROUP", "Declared", "discover", "explain_clash", "find_misnomer"]

GROUP = "modkit"
"""The group of entry points, which is also the name of modkit's own parts."""


@dataclass(frozen=True)
class Declared:
    """A plug-in that a distribution declares.

    Args:
        name: The entry point's name, the prefix of its parts' names.
        distribution: The distribution's name.
        version: The distribution's version.
        load: Imports and returns the plug-in.
        target: What the entry point names, `module` or `module:object`.
        flaw: Why it cannot be loaded, or None.
    """

    name: str
    distribution: str
    version: str
    load: Callable[[], Any]
    target: str = ""
    flaw: str | None = None

    @property
    def prefix(self) -> str:
        """What stands before the names of its kinds and parts; nothing before modkit's own."""
        return "" if self.name == GROUP else f"{self.name}/"

    @property
    def full_name(self) -> str:
        """The name with that of the distribution, which no other plug-in has."""
        return f"{self.distribution}:{self.name}"


def discover() -> Iterator[Declared]:
    """Yields the plug-ins of the installed distributions, distribution by distribution.

    `metadata.entry_points` would raise an exception for all if one distribution's table is malformed. If several
    distributions have the same name, the first one on the path counts.
    """
    found = find_distributions(GROUP)
    for name in sorted(found):
        version = ""
        try:
            distribution = metadata.distribution(name)
            version = read_header(distribution, "Version")
            points = sorted(one for one in distribution.entry_points if one.group in found[name])
        except Exception as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            yield Declared(name, name, version, object, flaw=f"entry points: {text}")
            continue
        counts = Counter(point.name for point in points if point.group == GROUP)
        for point in points:
            flaw = _find_flaw(point, counts[point.name])
            yield Declared(point.name, name, version, point.load, point.value, flaw)


def explain_clash(owners: Sequence[Declared]) -> str | None:
    """Explains why none of the plug-ins of one name is loaded, or returns None if there is only one."""
    if len(owners) < 2:
        return None
    names = " and ".join(one.distribution for one in owners)
    ways = " or ".join(f"MODKIT_DISABLE={one.full_name}" for one in owners)
    return f"{names} each declare a plug-in {owners[0].name!r}, expected one: leave one out by {ways}"


def find_misnomer(plugin: Any, target: str) -> str | None:
    """Returns what is wrong if an entry point names something other than a module or object with hooks, or None.

    Args:
        plugin: What the entry point names.
        target: How it names it, `module` or `module:object`.
    """
    if isinstance(plugin, ModuleType):
        return None
    expected = "expected the entry point to name the module with the hooks"
    advice = f': write "{target.partition(":")[0]}"' if target else ""
    if inspect.isroutine(plugin):
        return f"{expected}, got the function {target or plugin.__name__!r}{advice}"
    hooks = [name for name in dir(plugin) if hasattr(getattr(plugin, name, None), "modkit_impl")]
    what = f"the class {target or plugin.__name__!r}" if isinstance(plugin, type) else f"a {type(plugin).__name__}"
    if not hooks:
        return f"{expected}, got {what}{advice}"
    if isinstance(plugin, type) and any(inspect.isfunction(inspect.getattr_static(plugin, name)) for name in hooks):
        return f"expected the entry point to name a module or an object with the hooks, got {what}: name an instance"
    return None


def _find_flaw(point: metadata.EntryPoint, count: int) -> str | None:
    if point.group != GROUP:
        return (
            f"expected its entry point in the group {GROUP!r}, got the group {point.group!r}: write "
            f"[project.entry-points.{GROUP}] in pyproject.toml and install it again"
        )
    if count > 1:
        return f"the name {point.name!r} is declared more than once"
    if point.name == GROUP:
        return f"the name {point.name!r} is modkit's own"
    if not re.fullmatch(r"[^\s/,:]+", point.name):
        return f"expected a name without blanks, slashes, commas and colons, got {point.name!r}"
    return None
