"""Python in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import modkit

__all__ = ["READ_PEAK", "run_python"]

READ_PEAK = 'int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])'
"""An expression for the peak memory of a process, without its parent's, in KiB."""


def run_python(
    *arguments: object, cwd: Path | None = None, fail: bool = False, path: tuple[Path, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs `python ARGUMENTS` with `path` and this checkout in front; unless it may `fail`, expects status 0."""
    entries = [*path, Path(modkit.__file__).parents[1], os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, entries)), **environment}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=variables, timeout=600)
    assert fail or done.returncode == 0, done.stdout + done.stderr
    return done
