"""A folder whose files have the names of modules that every process imports."""

from __future__ import annotations

from pathlib import Path

__all__ = ["MARK", "set_traps"]

MARK = "imported"


def set_traps(folder: Path) -> Path:
    """Writes modules that leave a mark and fail when they are imported; returns the mark's path."""
    for name in ("click", "json", "random", "torch", "modkit"):
        code = f"open({str(folder / MARK)!r}, 'a').write(__name__)\nraise ImportError('a trap')\n"
        (folder / f"{name}.py").write_text(code)
    return folder / MARK
