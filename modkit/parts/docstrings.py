"""Reads the summary, arguments and papers that `modkit show` prints from the Google-style docstring of a part's target.

Only the target's own docstring is read, never an inherited one, which may describe something else.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["read_arguments", "read_paper", "read_summary"]

_SECTION = re.compile(r"([A-Z][\w ]*):")
_REFERENCE = re.compile(r"\S.*?(?:https?://\S+|$)")  # a link ends a reference
_ARGUMENT = re.compile(r"([\w, *]+?)(?:\s*\([^)]*\))?:(?:\s+(.*))?")


def read_summary(target: Callable[..., Any]) -> str:
    """Reads the first paragraph, on one line."""
    return " ".join(_get_docstring(target).partition("\n\n")[0].split())


def read_arguments(target: Callable[..., Any]) -> dict[str, str]:
    """Reads the text of each argument under `Args:`; for a class, also from the docstring of its own `__init__`."""
    if isinstance(target, partial):
        return read_arguments(target.func)
    found = _parse_arguments(_get_docstring(target))
    if not isinstance(target, type):
        return found
    return _parse_arguments(inspect.cleandoc(getattr(vars(target).get("__init__"), "__doc__", None) or "")) | found


def read_paper(target: Callable[..., Any]) -> str | None:
    """Reads the text under `References:`, one reference per line; None if there is none."""
    text = "\n".join(_extract_section(_get_docstring(target), ("References", "Reference")))
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    return "\n".join(one for paragraph in paragraphs for one in _REFERENCE.findall(paragraph)) or None


def _get_docstring(target: Callable[..., Any]) -> str:
    if isinstance(target, partial):
        return _get_docstring(target.func)
    if not isinstance(target, type):
        return inspect.cleandoc(getattr(target, "__doc__", None) or "")
    text = vars(target).get("__doc__") or ""
    if text.startswith(f"{target.__name__}("):  # the default docstring of a dataclass
        text = ""
    return inspect.cleandoc(text or getattr(vars(target).get("__init__"), "__doc__", None) or "")


def _parse_arguments(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    names: list[str] = []
    for line in _extract_section(docstring, ("Args", "Arguments")):
        match = None if line.startswith((" ", "\t")) else _ARGUMENT.fullmatch(line.rstrip())
        if match:
            names = [name.strip(" *") for name in match[1].split(",")]
            found.update(dict.fromkeys(names, match[2] or ""))
        elif line.strip():
            found.update({name: f"{found[name]} {line.strip()}".strip() for name in names})
    return found


def _extract_section(docstring: str, titles: tuple[str, ...]) -> list[str]:
    """Extracts the lines of a section, without its indentation."""
    lines: list[str] = []
    inside = False
    for line in docstring.splitlines():
        if match := _SECTION.fullmatch(line.rstrip()):
            inside = match[1] in titles
        elif inside and line and not line[0].isspace():
            inside = False
        elif inside:
            lines.append(line)
    return inspect.cleandoc("\n".join(["", *lines])).splitlines()
