"""The git commit of a folder in a checkout, which records the sources of a run.

A checkout may come from anywhere, and its configuration can name programs that git runs: filters, a monitor of files,
hooks. So the commit is read from the files `HEAD`, `refs` and `packed-refs`. Whether files were changed is asked of git
with a repository of our own, which is empty but for the commit and borrows the checkout's objects and index. Neither
the checkout's configuration nor the user's is read, so no program is configured.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from modkit.runs.files import read_regular

__all__ = ["find_commit"]

_DIFF = (
    "git --no-optional-locks -c core.fsmonitor=false "
    "diff --quiet --no-ext-diff --no-textconv --ignore-submodules=all HEAD --"
).split()
_SECONDS = 10.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"refs(?:/(?!\.)[^/\0\s]+)+")
_LIMIT = 2**26  # bytes of a file that is read; packed-refs has a line for each branch and tag
_DEPTH = 5  # of references to references, as in git


def find_commit(folder: Path) -> dict[str, str | bool | None] | None:
    """Finds the commit of the checkout that contains a folder, and whether a tracked file has been changed.

    Writes nothing to the checkout and runs no program that it names. Contents are compared as they are: a file that git
    stores in another form (by a filter, with other line ends) counts as changed once its time stamp has changed.

    Returns:
        `{"commit": its 40 or 64 digits, "dirty": whether files were changed}`, where `dirty` is None if git is not
        installed or cannot tell; None without a checkout or a commit.
    """
    root = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)
    if root is None:
        return None
    try:
        git = _find_directory(root)
        shared = git / _read(git / "commondir") if (git / "commondir").exists() else git
        commit = _resolve("HEAD", git, shared)
    except (OSError, ValueError):
        return None
    return {"commit": commit, "dirty": _has_changes(root, commit, git, shared)} if commit else None


def _find_directory(root: Path) -> Path:
    """Finds the git directory: `.git`, or where this file of a linked work tree or a submodule points."""
    path = root / ".git"
    return path if path.is_dir() else root / _read(path).removeprefix("gitdir:").strip()


def _resolve(name: str, git: Path, shared: Path) -> str | None:
    """Follows references to the name of a commit; None if there is none."""
    for _ in range(_DEPTH):
        loose = next((path for path in (git / name, shared / name) if path.is_file()), None)
        text = _read(loose) if loose else _find_packed(name, shared)
        if _COMMIT.fullmatch(text):
            return text
        name = text.removeprefix("ref:").strip()
        if not text.startswith("ref:") or not _REF.fullmatch(name):
            return None
    return None


def _find_packed(name: str, shared: Path) -> str:
    path = shared / "packed-refs"
    lines = _read(path).splitlines() if path.is_file() else []
    return next((line.partition(" ")[0] for line in lines if line.partition(" ")[2] == name), "")


def _read(path: Path) -> str:
    return read_regular(path, _LIMIT).decode().strip()


def _has_changes(root: Path, commit: str, git: Path, shared: Path) -> bool | None:
    with tempfile.TemporaryDirectory(prefix="modkit-git-") as own:
        empty = Path(own)
        (empty / "refs").mkdir()
        (empty / "HEAD").write_text(f"{commit}\n")
        if len(commit) == 64:
            (empty / "config").write_text("[core]\nrepositoryformatversion = 1\n[extensions]\nobjectformat = sha256\n")
        variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        variables |= {"HOME": own, "XDG_CONFIG_HOME": own, "GIT_CONFIG_NOSYSTEM": "1", "GIT_ATTR_NOSYSTEM": "1"}
        variables |= {"GIT_DIR": own, "GIT_WORK_TREE": str(root.absolute())}
        variables |= {"GIT_OBJECT_DIRECTORY": str((shared / "objects").absolute())}
        variables |= {"GIT_INDEX_FILE": str((git / "index").absolute()), "GIT_TERMINAL_PROMPT": "0"}
        try:
            done = subprocess.run(
                _DIFF, cwd=root, env=variables, capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return {0: False, 1: True}.get(done.returncode)
