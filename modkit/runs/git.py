"""The git commit of a folder in a checkout, which records the sources of a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["find_commit"]

_DESCRIBE = "git -c core.fsmonitor=false --no-optional-locks describe --always --abbrev=40 --exclude=* --dirty".split()
_SECONDS = 10.0


def find_commit(folder: Path) -> dict[str, str | bool] | None:
    """Finds the commit of the checkout that contains a folder, and whether a tracked file has been changed.

    Writes nothing and runs no program of the repository.

    Returns:
        `{"commit": its 40 digits, "dirty": whether files were changed}`; None without a checkout, a commit or git.
    """
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None
    try:
        done = subprocess.run(_DESCRIBE, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    name, mark, _ = done.stdout.strip().partition("-")
    return {"commit": name, "dirty": bool(mark)} if done.returncode == 0 and name else None
