"""The folder that cases are played in, each in a process of its own."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.files import write_fashion_mnist
from tests.forks import server
from tests.golden.cases import Case
from tests.golden.play import PLAYED, act

__all__ = ["open_folder", "play"]


@contextmanager
def open_folder(cases: Iterable[Case]) -> Iterator[None]:
    """Works in a new folder with the files that the cases read, until the context ends."""
    with tempfile.TemporaryDirectory(prefix="golden-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name).resolve()
        patch.setenv("MODKIT_DATASETS", str(folder / "datasets"))
        patch.setenv("MODKIT_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        write_fashion_mnist(folder / "datasets" / "fashion-mnist")
        if any(case.name.startswith(("swaps/", "refused/")) for case in cases):
            from tests.swap.files import write_files

            if status := _run_apart(write_files, folder):
                raise RuntimeError(f"the files of the swap matrix could not be written: status {status}")
        yield


def play(case: Case, kept: Path | None = None) -> dict[str, Any]:
    """Plays a case in the working folder, in a process of its own: what is said once is said in each.

    Args:
        case: The case.
        kept: Where its run is kept; one that is there already is loaded.

    Returns:
        What it says and makes, by field, as plain data without the folder's path. A failure is among the messages.
    """
    played = Path(PLAYED)
    played.unlink(missing_ok=True)
    status = _run_apart(act, case, os.getcwd(), dict(os.environ), kept)
    if status:
        return {"failed": f"its process ended with status {status}", "messages": [], "warnings": []}
    found: dict[str, Any] = json.loads(played.read_text(encoding="utf-8"))
    return found


def _run_apart(do: Callable[..., object], *arguments: object) -> int:
    """Acts in a fork of a process that has imported modkit; returns its status."""
    process = server().Process(target=do, args=arguments)
    process.start()
    process.join()
    return int(process.exitcode)
