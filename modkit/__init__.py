"""modkit: plug-in parts for deep generative models.

You choose parts, a spec says how they compose, and modkit checks, trains, samples and measures the whole. Importing
this package imports no torch: its names, which `__init__.pyi` lists for editors as well, resolve when they are first
used.
"""

from __future__ import annotations

import importlib
from typing import Any

with open(f"{__file__}i", encoding="utf-8") as _stub:
    _HOMES = {name: home for _, home, _, name, *_ in map(str.split, _stub)}  # each line: from HOME import NAME as NAME

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'modkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
