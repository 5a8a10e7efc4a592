"""Trees of the repository, the present one or a revision's, and a measurement in a process that imports one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.mended.figure import Value

__all__ = ["PRESENT", "extract", "measure_in"]

PRESENT = Path(__file__).resolve().parents[2]
"""The tree of this file."""

_PARTS = ("modkit", "README.md")


@contextmanager
def extract(revision: str) -> Iterator[Path]:
    """A folder with the library and the README of a revision, which is gone afterwards.

    Raises:
        ValueError: If this is no clone, or it does not hold the revision.
    """
    command = ["git", "-C", str(PRESENT), "archive", "--format=zip", revision, *_PARTS]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()
        raise ValueError(f"extract expects a revision of this clone (a shallow one has few), got {revision}: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(io.BytesIO(done.stdout)).extractall(folder)
        yield Path(folder)


def measure_in(tree: Path, name: str) -> Value:
    """Measures a figure in a tree, in a process of its own; what the tree lacks of this study comes from the present.

    Raises:
        RuntimeError: If the process fails; a measurement that is refused does not.
    """
    path = os.pathsep.join(dict.fromkeys([str(tree), str(PRESENT)]))
    command = [sys.executable, "-m", "examples.mended.measure", name]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"measuring {name} in {tree} ended with status {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
