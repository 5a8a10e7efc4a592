"""What tests compare of runs."""

from __future__ import annotations

from pathlib import Path

__all__ = ["contents", "differing"]


def contents(run: Path) -> dict[str, bytes]:
    """All that a run must not owe to clocks or to being stopped: every file but that of the clocks."""
    files = {str(path.relative_to(run)): path for path in run.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "timing.jsonl"}


def differing(run: Path, other: Path) -> list[str]:
    """Names of the files in which two runs differ, or that one of them lacks."""
    mine, others = contents(run), contents(other)
    return sorted(name for name in mine.keys() | others.keys() if mine.get(name) != others.get(name))
