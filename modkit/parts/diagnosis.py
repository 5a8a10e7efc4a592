"""The diagnosis of a plug-in: what `modkit doctor` calls failed, and the conformance battery fails on."""

from __future__ import annotations

from importlib import metadata

from modkit.parts.loading import guard_loading
from modkit.parts.plugin import Plugin
from modkit.parts.registry import DISTRIBUTION, Registry
from modkit.version import __version__

__all__ = ["find_flaws"]


def find_flaws(registry: Registry, plugin: Plugin) -> list[str]:
    """Returns what is wrong with a plug-in: its problems, a requirement on modkit that is not met, and kinds without
    a Protocol, which is imported here.

    A plug-in that is disabled has no flaws.
    """
    if plugin.status == "disabled":
        return []
    unmet = _find_unmet(plugin.distribution)
    flaws = registry.list_problems(plugin) + ([unmet] if unmet is not None else [])
    for kind in registry.list_kinds_of(plugin):
        try:
            with guard_loading(f"the Protocol of kind {kind.name}"):
                kind.load_protocol()
        except (ImportError, ValueError) as error:
            flaws.append(str(error))
    return flaws


def _find_unmet(distribution: str) -> str | None:
    """Returns the distribution's requirement on modkit if the running modkit does not meet it."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    try:
        requirements = metadata.requires(distribution) or ()
    except metadata.PackageNotFoundError:  # a plug-in that was added without one
        return None
    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            return f"has a requirement that cannot be parsed, {text!r}: {error}"
        if canonicalize_name(requirement.name) != DISTRIBUTION:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            return f"requires {DISTRIBUTION}{requirement.specifier}, but {__version__} is installed"
    return None
