"""The folder where modkit keeps what it can compute or fetch again: reference statistics, weights asked for.

`MODKIT_CACHE` names it; otherwise it is `modkit` in the platform's own folder of caches. Nothing is made at import.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["find_cache_folder"]


def find_cache_folder() -> Path:
    """The folder of caches; it may not exist yet."""
    if chosen := os.environ.get("MODKIT_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "modkit" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "modkit"
    base = os.environ.get("XDG_CACHE_HOME", "")  # the standard has relative paths ignored
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "modkit"
