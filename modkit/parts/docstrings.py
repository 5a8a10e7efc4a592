"""What `modkit show` tells of a part: summary, arguments and paper, from the Google-style docstring of the target.

Only the target's own docstring speaks for it, never an inherited one: a subclass may mean something else.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

__all__ = ["read_arguments", "read_paper", "read_summary"]

_SECTION = re.compile(r"([A-Z][\w ]*):")
_REFERENCE = re.compile(r"\S.*?(?:https?://\S+|$)")  # a link ends a reference
_ARGUMENT = re.compile(r"([\w, *]+?)(?:\s*\([^)]*\))?:(?:\s+(.*))?")


def read_summary(target: Callable[..., Any]) -> str:
    """The first paragraph, on one line."""
    return " ".join(_get_docstring(target).partition("\n\n")[0].split())


def read_arguments(target: Callable[..., Any]) -> dict[str, str]:
    """The text of each argument under `Args:`; of a class, its own `__init__`'s docstring fills in."""
    found = _parse_arguments(_get_docstring(target))
    if not isinstance(target, type):
        return found
    return _parse_arguments(inspect.cleandoc(getattr(vars(target).get("__init__"), "__doc__", None) or "")) | found


def read_paper(target: Callable[..., Any]) -> str | None:
    """The text under `References:`, one reference a line, or None."""
    text = "\n".join(_extract_section(_get_docstring(target), ("References", "Reference")))
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    return "\n".join(one for paragraph in paragraphs for one in _REFERENCE.findall(paragraph)) or None


def _get_docstring(target: Callable[..., Any]) -> str:
    if not isinstance(target, type):
        return inspect.cleandoc(getattr(target, "__doc__", None) or "")
    text = vars(target).get("__doc__") or ""
    if text.startswith(f"{target.__name__}("):  # what `dataclass` writes where there is none
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
    """The lines of a section, its own indentation taken off."""
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
