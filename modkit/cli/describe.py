"""What `modkit list`, `show` and `doctor` say, as plain data that JSON can hold; printing is the command line's.

Listing and diagnosing import no target, and so no torch; describing a part imports its target.
"""

from __future__ import annotations

import inspect
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from importlib import metadata
from typing import Any

from modkit.kinds import Default
from modkit.parts import docstrings
from modkit.parts.annotation import render
from modkit.parts.registry import DISTRIBUTION, Plugin, Registry, get_registry
from modkit.parts.signature import MISSING, read_parameters
from modkit.version import __version__

__all__ = ["description", "diagnosis", "listing"]


def listing(kind: str | None = None, search: str = "") -> list[dict[str, str]]:
    """Every part, or those of one kind: kind, name, distribution, version, summary.

    Args:
        kind: The kind; all where not given.
        search: Words that a row must hold, each in its kind, name, distribution or summary, in any case.

    Raises:
        ValueError: If there is no such kind.
    """
    rows = [
        {
            "kind": entry.part.kind,
            "name": entry.part.name,
            "distribution": entry.distribution,
            "version": entry.version,
            "summary": entry.part.summary,
        }
        for entry in get_registry().list_parts(kind)
    ]
    words = search.casefold().split()
    return [row for row in rows if all(word in " ".join(row.values()).casefold() for word in words)]


def description(kind: str, name: str) -> dict[str, Any]:
    """One part: what `listing` says, its source, paper and parameters (name, type, required, default, help).

    Raises:
        ValueError: If there is no such part, or its signature is none that a part can have.
        ImportError: If its target cannot be imported.
    """
    entry = get_registry().find_entry(kind, name)
    target = entry.part.load()
    return {
        "kind": kind,
        "name": entry.part.name,
        "summary": docstrings.read_summary(target) or entry.part.summary,
        "distribution": entry.distribution,
        "version": entry.version,
        "source": _source(target),
        "paper": docstrings.read_paper(target) or _citation(entry.part.summary),
        "parameters": [
            {
                "name": parameter.name,
                "type": render(parameter.annotation),
                "required": parameter.default is MISSING,
                "default": None if parameter.default is MISSING else _plain(parameter.default),
                "help": parameter.help,
            }
            for parameter in read_parameters(entry.part).values()
        ],
    }


def diagnosis() -> dict[str, Any]:
    """Python, torch and modkit as installed, each plug-in with its status and reason, and how many there are.

    A plug-in is `ok`, `disabled` (by `MODKIT_DISABLE`) or `failed`; what is good in a failed one works.
    """
    known = get_registry()
    plugins = [_plugin_row(known, plugin) for plugin in known.plugins]
    counts = {status: sum(row["status"] == status for row in plugins) for status in ("ok", "disabled", "failed")}
    return {
        "python": platform.python_version(),
        "modkit": __version__,
        "torch": _version("torch"),
        "plugins": plugins,
        "counts": {"parts": len(known.list_parts()), "plugins": len(plugins), **counts},
    }


def _plugin_row(known: Registry, plugin: Plugin) -> dict[str, Any]:
    reasons = [problem.reason for problem in known.problems if problem.plugin == plugin.name]
    unmet = None if plugin.status == "disabled" else _unmet(plugin.distribution)
    if unmet is not None:
        reasons.append(unmet)
    return {
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": "failed" if reasons else plugin.status,
        "reason": "; ".join(reasons) or None,
        "parts": sum(entry.part.name.startswith(f"{plugin.name}/") for entry in known.list_parts()),
    }


def _unmet(distribution: str) -> str | None:
    """The distribution's own requirement on modkit, if the modkit that runs does not meet it."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for text in metadata.requires(distribution) or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            return f"states a requirement that cannot be read, {text!r}: {error}"
        if canonicalize_name(requirement.name) != DISTRIBUTION:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if not requirement.specifier.contains(__version__, prereleases=True):
            return f"requires {DISTRIBUTION}{requirement.specifier}, installed is {__version__}"
    return None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _source(target: Callable[..., Any]) -> str:
    """`module:line` of the definition, or the module where there is no source."""
    module = getattr(target, "__module__", None) or type(target).__module__
    try:
        return f"{module}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return module


def _citation(summary: str) -> str | None:
    match = re.search(r"\(([^()]*\b(?:19|20)\d\d)\)", summary)
    return match[1] if match else None


def _plain(value: Any) -> Any:
    if isinstance(value, Default):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else repr(value)
