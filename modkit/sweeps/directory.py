"""A sweep's directory: what the sweep consists of, and which process holds it.

    sweep.json          the trials, the resolved spec of each run, the cap on steps, the options of evaluations
    specs/NAME.yaml     the same specs, for the processes that train
    runs/NAME/          the runs with their reports, see `modkit.runs.run`

The progress of a sweep is read from its runs and their reports; it is not stored separately. All files are written
atomically, `sweep.json` first.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modkit.building.difference import compare_pair
from modkit.progress import Progress
from modkit.runs.files import find_final_name, make_folders, read_regular, replace_file
from modkit.runs.hold import LOCK, Hold
from modkit.specs.spec import Spec

__all__ = ["FORMAT", "extend", "hold", "record"]

FORMAT = 2
"""The format of `sweep.json`; directories of format 1 also held a record of progress."""

_SWEEP = "sweep.json"
_LISTED = 5  # maximum number of differences in a message


@contextmanager
def hold(path: Path, progress: Progress) -> Iterator[int]:
    """Creates a sweep's directory and holds it; yields the file descriptor of a lock.

    Programs that are started with the descriptor hold the directory too: if a sweep was killed while its training still
    runs, the next sweep waits for the training to end.

    Args:
        path: The directory.
        progress: Shows that the sweep is waiting.

    Raises:
        ValueError: If the path is a file, or the directory holds anything other than a sweep.
    """
    if path.exists() and not path.is_dir():
        raise ValueError(f"a sweep expects a directory, got the file {path}")
    make_folders(path)
    other = sorted(entry.name for entry in path.iterdir() if not find_final_name(entry.name))
    if _SWEEP not in other and other not in ([], [LOCK]):
        listed = ", ".join(other[:_LISTED])
        raise ValueError(f"a sweep expects an empty directory or a sweep, got {path} with {listed}")
    with Hold(path, lambda: progress.note(f"waiting for a process that another sweep started in {path}")) as held:
        yield held.descriptor


def record(path: Path, description: Mapping[str, Any]) -> None:
    """Writes the description of a sweep into its directory.

    Args:
        path: The directory.
        description: `format`, `steps`, `evaluation`, `runs` (specs by name) and `trials`, as plain data.

    Raises:
        ValueError: If the directory holds a sweep with another spec or cap, with trials that this sweep lacks, or from
            another version of modkit.
    """
    if (path / _SWEEP).exists():
        _check_same(path, description)
    extend(path, description)
    for folder in filter(Path.is_dir, (path, path / "specs", *path.glob("runs/*"), *path.glob("runs/*/evaluations"))):
        for entry in [found for found in folder.iterdir() if find_final_name(found.name)]:
            entry.unlink()  # left by a process that was killed


def extend(path: Path, description: Mapping[str, Any]) -> None:
    """Writes the description of a sweep in place of one with fewer trials, while its processes are at work."""
    _write(path / _SWEEP, json.dumps(description, indent=1))  # first, since it marks the directory as a sweep
    (path / "specs").mkdir(exist_ok=True)
    for name, text in description["runs"].items():
        _write(path / "specs" / f"{name}.yaml", text)


def _write(path: Path, text: str) -> None:
    if not path.exists() or read_regular(path) != text.encode():
        replace_file(path, text.encode())


def _check_same(path: Path, description: Mapping[str, Any]) -> None:
    file = path / _SWEEP
    try:
        before = json.loads(read_regular(file))
        version = before["format"]
        if version == FORMAT:
            differences = list(dict.fromkeys(_describe_differences(before, description)))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: {error!r}") from error
    if version != FORMAT:
        raise ValueError(
            f"{file} has format {version}, expected {FORMAT}: this sweep was started by another version of modkit and "
            "has to be finished by it; choose another directory with --out"
        )
    if differences:
        raise ValueError(f"{path} holds another sweep: {', '.join(differences)}; choose another directory with --out")


def _describe_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Describes why a sweep cannot continue an earlier one; additional trials are no obstacle."""
    if before["steps"] != now["steps"]:
        yield f"steps were {before['steps']}, now {now['steps']}"
    there = {(trial["label"], trial["run"]) for trial in now["trials"]}  # evaluations may be repeated, see `sweep`
    gone = [trial["label"] for trial in before["trials"] if (trial["label"], trial["run"]) not in there]
    if gone:
        more = f" and {len(gone) - _LISTED} more" if len(gone) > _LISTED else ""
        yield f"these axes lack its trials {'; '.join(gone[:_LISTED])}{more}"
    for name, text in before["runs"].items():
        if not isinstance(text, str):
            raise TypeError(f"expected the spec of {name}, got {text!r}")
        if now["runs"].get(name, text) != text:
            found = compare_pair(Spec.from_yaml(text).tree, Spec.from_yaml(now["runs"][name]).tree)
            listed = [f"{one.path} was {one.a}, now {one.b}" for one in found[:_LISTED]]
            yield from listed or [f"{name} had another spec"]
            if len(found) > _LISTED:
                yield f"and {len(found) - _LISTED} more"
