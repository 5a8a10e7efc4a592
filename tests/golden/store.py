"""The folder of golden files: a file for each case, and one that says in which environment they were written."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from tests.golden.cases import Case, find_absent, list_examples
from tests.golden.comparison import Comparison, Difference
from tests.golden.folder import open_folder, play
from tests.golden.moved import MOVED, Move

__all__ = ["check", "write"]

_ENVIRONMENT = "environment.json"


def write(folder: Path, cases: Sequence[Case], say: Callable[[str], None] = print) -> None:
    """Plays the cases and writes a file for each.

    Args:
        folder: Where to.
        cases: The cases. What needs a plug-in that is not installed is skipped.
        say: Receives the name of each case.

    Raises:
        ValueError: If two cases have one name.
    """
    for name, times in Counter(case.name for case in cases).items():
        if times > 1:
            raise ValueError(f"write expects cases of different names, got {name} twice")
    folder = folder.resolve()
    _write(folder / _ENVIRONMENT, _describe_environment())
    with open_folder(cases):
        for case in cases:
            if plugin := find_absent(case):
                say(f"{case.name}: skipped, {plugin} is not installed")
                continue
            say(case.name)
            kept = folder / "runs" / case.name if case.name.startswith("examples/") else None
            played = play(case, kept)
            _write(folder / f"{case.name}.json", {"spec": case.spec, "overrides": case.overrides, **played})


def check(
    folder: Path, only: str = "*", moves: Sequence[Move] = MOVED, present: Sequence[Case] | None = None
) -> Iterator[Difference | str]:
    """Plays the cases of a folder, as they were written there, and yields the differences.

    Args:
        folder: The folder.
        only: Pattern of names of cases.
        moves: What has moved on purpose. One that has not is reported as a text, if all cases are played.
        present: Cases as they are now, by default the examples: whose text has changed, is played both ways.

    Raises:
        ValueError: If the files were written in another environment.
    """
    folder = folder.resolve()
    written = _read(folder / _ENVIRONMENT)
    if written != (here := _describe_environment()):
        changed = [f"{key}: {written.get(key)} → {here[key]}" for key in here if written.get(key) != here[key]]
        raise ValueError(f"{folder} expects the environment that it was written in, got {'; '.join(changed)}")
    files = {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.glob("*/*.json"))}
    golden = {name: _read(path) for name, path in files.items() if fnmatchcase(name, only)}
    comparison = Comparison(moves)
    today = {case.name: case for case in (list_examples() if present is None else present)}
    cases = {name: Case(name, case["spec"], tuple(case["overrides"])) for name, case in golden.items()}
    with open_folder(list(cases.values())):
        for name, case in cases.items():
            for each in dict.fromkeys((case, today.get(name, case))):
                kept = folder / "runs" / name
                yield from comparison.compare(name, golden[name], play(each, kept if kept.exists() else None))
    if only == "*":
        yield from (f"moved.py: no case shows {move}" for move in comparison.list_unused())


def _describe_environment() -> dict[str, Any]:
    """Describes all that bits and messages depend on, besides the code."""
    found = {each.metadata["Name"]: each.version for each in distributions()}
    versions = {name: "" if name.startswith("modkit") else version for name, version in found.items()}
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "packages": dict(sorted(versions.items())),
    }


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
