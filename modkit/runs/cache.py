"""The cache folder: modkit keeps there what it can compute or download again, such as reference statistics.

`MODKIT_CACHE` sets it; the default is `modkit` in the platform's cache folder. Importing modkit creates nothing.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path

from modkit.runs.files import hash_data, replace_file
from modkit.runs.hold import Hold
from modkit.runs.ranks import count_launched

__all__ = ["compute_once", "find_cache_folder"]

_logger = logging.getLogger(__name__)


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


def compute_once(name: str, compute: Callable[[], bytes]) -> bytes:
    """Computes bytes in one process at a time, and once for the processes that a launcher has started together.

    While one process computes, others that ask for the same name wait. If they belong to the same launch, they take its
    result; otherwise each computes anew, since what it depends on may have changed. Without a cache folder that can be
    written, every process computes.

    Args:
        name: What is computed.
        compute: Computes it.

    Examples:
        >>> compute_once("an example", lambda: b"result")
        b'result'
    """
    folder = find_cache_folder() / "once" / hash_data(name)[:32]
    launch, result = _identify_launch(), folder / "result"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = _read_head(result)
        hold = Hold(folder, lambda: _logger.info("%s: waiting for the process that does it", name))
    except OSError:
        return compute()
    with hold:
        head = _read_head(result)
        if launch and head != before and head.startswith(launch):
            return result.read_bytes()[len(head) :]
        made = compute()
        if launch:
            try:
                replace_file(result, launch + secrets.token_hex(8).encode() + b"\n" + made)
            except OSError as error:
                _logger.warning("%s cannot be written, so that each process does it: %s: %s", result, name, error)
        return made


def _identify_launch() -> bytes:
    """What the processes of one launch have in common, and those of two at the same time have not; empty if alone."""
    if count_launched() == 1:
        return b""
    names = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT")
    return " ".join(["launch", *(os.environ.get(one, "") for one in names), ""]).encode()


def _read_head(result: Path) -> bytes:
    """Reads the first line of a result, which is another for every result; empty if there is none."""
    try:
        with result.open("rb") as file:
            return file.readline()
    except FileNotFoundError:
        return b""
