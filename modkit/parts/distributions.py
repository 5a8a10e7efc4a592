"""Installed distributions: a fast way to find those with entry points of a group, and to read their metadata.

`importlib.metadata` parses all metadata of a distribution, including its README, each time a field is read. With 200
plug-ins that takes a seventh of the time of `modkit list`.
"""

from __future__ import annotations

import contextlib
import re
from importlib import metadata

__all__ = ["find_distributions", "read_header"]


def find_distributions(group: str) -> set[str]:
    """Returns the normalized names (PEP 503) of the distributions that declare entry points of a group."""
    names = set()
    for distribution in metadata.distributions():
        with contextlib.suppress(Exception):  # a broken distribution must not break the others
            if f"[{group}]" in (distribution.read_text("entry_points.txt") or ""):
                names.add(re.sub(r"[-_.]+", "-", read_header(distribution, "Name")).lower())
    return names


def read_header(distribution: metadata.Distribution, field: str) -> str:
    """Reads a one-word field of a distribution's metadata, such as its name or version."""
    text = distribution.read_text("METADATA") or ""
    match = re.search(rf"^{field}:[ \t]*(\S+)[ \t]*$", text.partition("\n\n")[0], re.MULTILINE)
    return match[1] if match else distribution.metadata[field]
