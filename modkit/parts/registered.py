"""Files that register parts of one's own (`modkit.register`), for commands: `modkit train spec.yaml --parts mine.py`.

Processes that a command starts run the same files, which the environment variable `MODKIT_PARTS` lists.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from modkit.errors import describe_exception

__all__ = ["PREFIX", "add_file", "list_files", "run_file"]

PREFIX = "modkit_parts_"
"""The start of the names of the modules that the files are."""
_FILES = "MODKIT_PARTS"


def list_files() -> list[str]:
    """Lists the files whose parts this process has."""
    return [one for one in os.environ.get(_FILES, "").split(os.pathsep) if one]


def add_file(path: str) -> None:
    """Runs a file that registers parts, and notes it for the processes that this one starts.

    Raises:
        ValueError: If it cannot be run, or another one of its name has been.
    """
    file, files = str(Path(path).resolve()), list_files()
    if file not in files:
        if same := [one for one in files if Path(one).stem == Path(file).stem]:
            raise ValueError(f"expected files of different names, got {same[0]} and {file}")
        run_file(file)
        os.environ[_FILES] = os.pathsep.join([*files, file])


def run_file(file: str) -> None:
    """Runs a file that registers parts, as a module of its own.

    Raises:
        ValueError: If it cannot be run.
    """
    name = f"{PREFIX}{Path(file).stem}"
    found = importlib.util.spec_from_file_location(name, file)
    if found is None or found.loader is None:
        raise ValueError(f"expected a Python file that registers parts, got {file}")
    module = sys.modules[name] = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{file} cannot register its parts: {describe_exception(error)}") from error
