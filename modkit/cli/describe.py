"""The results of `modkit list`, `show` and `doctor` as plain data that JSON can hold; the command line prints them.

`list_parts` imports no part and so no torch; `describe_part` imports the part, and `diagnose` torch.
"""

from __future__ import annotations

import inspect
import math
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, is_dataclass
from importlib import metadata
from typing import Any

from modkit.kinds import Default, ImpliedExtras, read_extras
from modkit.parts import docstrings
from modkit.parts.annotation import render_declared
from modkit.parts.diagnosis import find_flaws
from modkit.parts.plugin import Plugin
from modkit.parts.registry import Registry, get_registry
from modkit.parts.signature import MISSING, read_parameters
from modkit.runs.origin import find_source
from modkit.specs.implied import list_implied
from modkit.version import __version__

__all__ = ["describe_part", "diagnose", "format_implied", "list_parts"]


def list_parts(kind: str | None = None, search: str = "") -> list[dict[str, str]]:
    """Lists all parts, or those of one kind: kind, name, distribution, version, summary.

    Args:
        kind: The kind; all kinds by default.
        search: Words that must all occur in a part's kind, name, distribution or summary, in upper or lower case.

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


def describe_part(kind: str, name: str) -> dict[str, Any]:
    """Describes one part: its row in `list_parts`, its source, its paper, and its parameters with types and help.

    `implies` holds what it implies for the slots next to its own, and `implied` what other parts imply for its slots.

    Raises:
        ValueError: If there is no such part, or its signature is not allowed for a part.
        ImportError: If its target cannot be imported.
    """
    entry = get_registry().find_entry(kind, name)
    target, declared = entry.part.load(), read_parameters(entry.part)
    return {
        "kind": kind,
        "name": entry.part.name,
        "summary": docstrings.read_summary(target) or entry.part.summary,
        "distribution": entry.distribution,
        "version": entry.version,
        "source": _locate(target),
        "paper": docstrings.read_paper(target) or _find_citation(entry.part.summary),
        "implies": _to_plain(read_extras(target, ImpliedExtras).implies),
        "implied": {str(part): _write_defaults(found) for part, found in list_implied(declared)},
        "parameters": [
            {
                "name": parameter.name,
                "type": render_declared(parameter.annotation),
                "required": parameter.default is MISSING,
                "default": None if parameter.default is MISSING else _to_plain(parameter.default),
                "help": parameter.help,
            }
            for parameter in declared.values()
        ],
    }


def format_implied(implied: Mapping[str, Any]) -> str:
    """Formats the parts that a part implies by slot, as `describe_part` returns them.

    Examples:
        >>> format_implied({"times": {"use": "log-normal", "mean": 0.0}, "sampler": "heun"})
        'times log-normal (mean=0.0), sampler heun'
    """
    nodes = {slot: {"use": one} if isinstance(one, str) else one for slot, one in implied.items()}
    params = {
        slot: ", ".join(f"{key}={value}" for key, value in node.items() if key != "use") for slot, node in nodes.items()
    }
    return ", ".join(f"{slot} {node['use']}{f' ({params[slot]})' * bool(params[slot])}" for slot, node in nodes.items())


def diagnose() -> dict[str, Any]:
    """Reports the versions of Python, torch and modkit, what each op runs, and each plug-in with its status and reason.

    A plug-in's row has what it adds, the kinds and the hooks that it implements, and where it was installed from.
    A plug-in is `ok`, `disabled` (by `MODKIT_DISABLE`) or `failed`; the valid parts of a failed plug-in still work.
    """
    known = get_registry()
    plugins = [_describe_plugin(known, plugin) for plugin in known.plugins]
    counts = {status: sum(row["status"] == status for row in plugins) for status in ("ok", "disabled", "failed")}
    return {
        "python": platform.python_version(),
        "modkit": __version__,
        "torch": _find_version("torch"),
        "ops": _diagnose_ops(),
        "plugins": plugins,
        "counts": {"parts": len(known.list_parts()), "plugins": len(plugins), **counts},
    }


def _diagnose_ops() -> list[dict[str, str]]:
    """Diagnoses the ops; torch may fail to import, as where another package's metadata are broken."""
    try:
        from modkit.ops.diagnosis import diagnose_ops
    except Exception as error:
        return [{"op": "all", "device": "", "runs": "", "reason": f"torch cannot be imported: {error}"}]
    return diagnose_ops()


def _describe_plugin(known: Registry, plugin: Plugin) -> dict[str, Any]:
    flaws = find_flaws(known, plugin)
    return {
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": "failed" if flaws else plugin.status,
        "reason": "; ".join(flaws) or None,
        "parts": len(known.list_parts_of(plugin)),
        "kinds": [kind.name for kind in known.list_kinds_of(plugin)],
        "hooks": known.list_hooks_of(plugin),
        "source": find_source(plugin.distribution),
    }


def _find_version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _locate(target: Callable[..., Any]) -> str:
    """Returns `module:line` of the definition, or only the module if it has no source."""
    module = getattr(target, "__module__", None) or type(target).__module__
    try:
        return f"{module}:{inspect.getsourcelines(target)[1]}"
    except (OSError, TypeError):
        return module


def _write_defaults(found: Mapping[str, Default]) -> dict[str, Any]:
    """Writes the defaults of slots as a spec does."""
    return {slot: {"use": one.name, **_to_plain(one.params)} if one.params else one.name for slot, one in found.items()}


def _find_citation(summary: str) -> str | None:
    match = re.search(r"\(([^()]*\b(?:19|20)\d\d)\)", summary)
    return match[1] if match else None


def _to_plain(value: Any) -> Any:
    if isinstance(value, Default):
        return value.name
    if is_dataclass(value) and not isinstance(value, type):
        return _to_plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):  # JSON has no such numbers
        return repr(value)
    return value if isinstance(value, bool | int | float | str | None) else repr(value)
