"""The cache folder: modkit keeps there what it can compute or download again, such as reference statistics.

`MODKIT_CACHE` sets it; the default is `modkit` in the platform's cache folder. Importing modkit creates nothing.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["find_cache_folder"]


def find_cache_folder() -> Path:
    """Finds the cache folder; it may not exist yet."""
    if chosen := os.environ.get("MODKIT_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "modkit" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "modkit"
    base = os.environ.get("XDG_CACHE_HOME", "")  # the standard says to ignore relative paths
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "modkit"
