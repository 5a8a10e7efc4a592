"""Installed distributions: a fast way to find those with entry points of a group, and to read their metadata.

`importlib.metadata` parses all metadata of a distribution, including its README, each time a field is read. With 200
plug-ins that takes a seventh of the time of `modkit list`.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from importlib import metadata

__all__ = ["find_distributions", "read_header"]

_HEADER = re.compile(r"^\[(.*)\][ \t]*$", re.MULTILINE)
_CLOSE = 0.85  # a letter too many or too few is above it, another letter (`molkit`) below


def find_distributions(group: str) -> dict[str, list[str]]:
    """Finds the distributions that declare entry points of a group, or of one that looks like a slip of it.

    Returns:
        The groups in question by the distribution's normalized name (PEP 503).
    """
    found: dict[str, list[str]] = {}
    for distribution in metadata.distributions():
        with contextlib.suppress(Exception):  # a broken distribution must not break the others
            headers = dict.fromkeys(_HEADER.findall(distribution.read_text("entry_points.txt") or ""))
            if groups := [header for header in headers if _is_like(header, group)]:
                name = re.sub(r"[-_.]+", "-", read_header(distribution, "Name")).lower()
                found[name] = list(dict.fromkeys([*found.get(name, ()), *groups]))
    return found


def read_header(distribution: metadata.Distribution, field: str) -> str:
    """Reads a one-word field of a distribution's metadata, such as its name or version."""
    text = distribution.read_text("METADATA") or ""
    match = re.search(rf"^{field}:[ \t]*(\S+)[ \t]*$", text.partition("\n\n")[0], re.MULTILINE)
    return match[1] if match else distribution.metadata[field]


def _is_like(header: str, group: str) -> bool:
    """Whether a group is the one that is meant, starts with it, or has a letter too many, too few or out of order."""
    if header == group:
        return True
    word, meant = (re.sub(r"[\W_]", "", name.casefold()) for name in (header, group))
    return (
        word.startswith(meant)
        or sorted(word) == sorted(meant)
        or difflib.SequenceMatcher(None, word, meant).ratio() > _CLOSE
    )
