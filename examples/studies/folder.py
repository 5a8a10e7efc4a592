"""What a study keeps in its folder, so that it can be stopped and resumed: its plan, its runs, figures, the report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import modkit
from modkit import Spec
from modkit.progress import Progress
from modkit.runs.files import replace_file

__all__ = ["check_plan", "keep", "train_run", "write_report"]


def check_plan(settings: Mapping[str, Any], out: Path) -> None:
    """Records what a study is started with.

    Raises:
        ValueError: If `out` holds a study of another plan.
    """
    wanted = json.loads(json.dumps(settings))
    found = keep(out / "plan.json", lambda: wanted)
    if other := [name for name in wanted if found.get(name) != wanted[name]]:
        raise ValueError(f"expected {out} to hold a study of the same plan, got one with another {', '.join(other)}")


def keep(path: Path, compute: Callable[[], Any]) -> Any:
    """The content of a JSON file, computed and written where there is no such file."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(compute(), indent=1).encode())
    return json.loads(path.read_bytes())


def train_run(spec: Spec, path: Path, progress: Progress | None = None, *, steps: int | None = None) -> float | None:
    """Trains a run or resumes it, without measuring it.

    `cpu-seconds.json` in the run holds the CPU time of a training that was never interrupted.

    Args:
        spec: The spec.
        path: The run's directory.
        progress: Displays progress.
        steps: Maximum number of steps of every stage.

    Returns:
        The CPU seconds that this call took; None if the run is finished already.
    """
    if (path / "status.json").exists():
        return None
    new, start = not path.exists(), time.process_time()
    modkit.train(spec, path, steps=steps, resume=True, evaluate=False, progress=progress)
    spent = time.process_time() - start
    if new:
        replace_file(path / "cpu-seconds.json", json.dumps({"CPU s": spent}).encode())
    return spent


def write_report(out: Path, text: str, figures: Mapping[str, Any]) -> None:
    """Writes `report.md` and `study.json`."""
    replace_file(out / "study.json", json.dumps(figures, indent=1).encode())
    replace_file(out / "report.md", text.encode())
