"""The git commit of a folder, where it is in a checkout: which sources a run was made from."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["find_commit"]

_DESCRIBE = "git -c core.fsmonitor=false --no-optional-locks describe --always --abbrev=40 --exclude=* --dirty".split()
_SECONDS = 10.0


def find_commit(folder: Path) -> dict[str, str | bool] | None:
    """The commit of the checkout that a folder is in, and whether a file that it tracks has been changed.

    Writes nothing and runs none of the repository's own programs.

    Returns:
        `{"commit": its 40 digits, "dirty": whether}`; None where there is no checkout, no commit or no git.
    """
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None
    try:
        done = subprocess.run(_DESCRIBE, cwd=folder, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    name, mark, _ = done.stdout.strip().partition("-")
    return {"commit": name, "dirty": bool(mark)} if done.returncode == 0 and name else None
