"""Loads pieces of the authors' code from a checkout: single functions and classes of a script, by name."""

from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["commit", "pieces"]


def pieces(path: Path, names: set[str], given: dict[str, Any]) -> SimpleNamespace:
    """Functions and classes of a script, whose imports at the top would need what a comparison has no use for.

    Args:
        path: The script.
        names: Which to take.
        given: What the names in them stand for.
    """
    body = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) in names]
    namespace = dict(given)
    exec(compile(ast.Module(body, []), str(path), "exec"), namespace)
    return SimpleNamespace(**{name: namespace[name] for name in names})


def commit(folder: Path) -> str:
    """The commit of a checkout, where it is one."""
    found = subprocess.run(["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown commit"
