"""The commit under test: it seeds what is drawn, and shows which files have just changed."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

__all__ = ["ROOT", "list_changed", "read_commit"]

ROOT = Path(__file__).parents[1]


@cache
def read_commit() -> str:
    """Returns the commit's hash, or an empty string outside a repository."""
    return "".join(_ask_git("rev-parse", "HEAD"))


@cache
def list_changed() -> frozenset[str]:
    """Returns the paths that the last commit and the working tree change; none outside a repository."""
    edited = _ask_git("diff", "--name-only", "--no-renames", "HEAD~1")
    return frozenset(edited + _ask_git("ls-files", "--others", "--exclude-standard"))


def _ask_git(*words: str) -> list[str]:
    """Returns the lines of git's answer, or none without git, a repository or a commit before this one."""
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
