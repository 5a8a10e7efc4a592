"""Checkpoints: named tensors and a JSON state in a folder that is complete or absent, even if its writer is killed.

    directory/step-00001500/
        model.safetensors, ema.safetensors, …    a file for each group of tensors
        model.1.safetensors, …                   of several processes, each writes the slices that it holds (here, 1)
        state.json                               everything that is not a tensor
        manifest.json                            size and SHA-256 of each file, and its own SHA-256; written last
    directory/frozen-SHA256.safetensors          what no checkpoint changes; it stays as long as one refers to it

A checkpoint is written under a temporary name; its files and the folder are synced to the disk, then the folder is
renamed. Several processes write into the same folder, see `modkit.runs.parts`. An existing checkpoint of the same name
is first renamed to `.step-00001500.old`, where readers find it until the new one is in place. What is damaged is never
deleted, but renamed to `damaged-step-00001500`. The files are described in `modkit.runs.encoding` and
`modkit.runs.tensors`.

A file that is missing, torn or changed is damage, a `CheckpointError`. So is a folder that was renamed to another step
than that of its state. A file that cannot be opened or read, because of
permissions or a failing disk, is an `OSError`: it says nothing about the checkpoint, and nothing is changed.

Only one process may write to a directory at a time (see `modkit.runs.hold`); any number may read it.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from modkit.runs.encoding import (
    MANIFEST,
    STATE,
    Checkpoint,
    CheckpointError,
    FileEntry,
    Manifest,
    check_name,
    dump_manifest,
    join,
    parse_manifest,
    parse_state,
)
from modkit.runs.files import find_final_name, make_own_folder, make_temporary_path, sync_folder, write_file
from modkit.runs.layout import FROZEN, read_step
from modkit.runs.parts import Patience, collect, write_files, write_part
from modkit.runs.snapshot import Memory, Snapshot, take
from modkit.runs.verified import read_data, read_limited, read_tensors
from modkit.types import PositiveInt, checked

__all__ = [
    "Checkpoint", "CheckpointError", "Latest", "find_latest", "list_names", "load", "prune", "read", "read_latest",
    "recover", "remove", "save", "save_snapshot", "set_aside", "write",
]  # fmt: skip

_NAME = re.compile(r"(?!damaged-)[A-Za-z0-9][A-Za-z0-9._-]*")
_OLD = re.compile(r"\.(.+)\.old")
_MANIFEST_LIMIT = 2**26
_RETRIES = 100  # times that a checkpoint may be replaced while a process tries to read the latest


def save(directory: Path, name: str, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint. It may replace one of the same name; at any time one of the two is complete.

    Args:
        directory: The folder of checkpoints; created if absent.
        name: Name of the new checkpoint, such as `step-00001500`.
        checkpoint: Its content. Tensors are copied to the CPU; neither they nor their gradients change.

    Returns:
        `directory / name`.

    Raises:
        ValueError: If a name is not plain, a value is not a dense tensor, or the state is not plain JSON; or if
            `directory` is a link.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save(Path(folder), "step-1", Checkpoint({"model": {"w": torch.ones(2)}}, {"step": 1}))
        ...     load(path)
        Checkpoint(tensors={'model': {'w': tensor([1., 1.])}}, state={'step': 1})
    """
    return save_snapshot(directory, name, take(checkpoint, Memory()), Patience())


def save_snapshot(directory: Path, name: str, snapshot: Snapshot, patience: Patience) -> Path:
    """Writes a checkpoint like `save`, together with the other processes that hold slices of its tensors.

    Args:
        directory: The folder of checkpoints; the first process creates it if it is absent.
        name: Name of the new checkpoint.
        snapshot: What this process writes.
        patience: How long to wait for the other processes.

    Returns:
        `directory / name`. The first process returns once it is complete, others once they have written their parts.

    Raises:
        ValueError: If the name is not plain, or `directory` is a link.
        OSError: If a part cannot be written, or another process does not write its part in time.
    """
    check_name("a name", name)
    if snapshot.rank:
        write_part(directory, name, snapshot, patience)
        return directory / name
    make_own_folder(directory)
    recover(directory)
    temporary = make_temporary_path(directory / name)
    try:
        temporary.mkdir()
        _write(temporary, snapshot, patience)
        _install(temporary, directory / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return directory / name


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint into an existing folder, not atomically: a kill may leave it incomplete.

    Raises:
        ValueError: As `save`.
    """
    _write(folder, take(checkpoint, Memory()), Patience())


def load(path: Path, groups: Collection[str] | None = None, owner: str | None = None) -> Checkpoint:
    """Loads and verifies the checkpoint at `path`, with its tensors on the CPU.

    Args:
        path: Its folder.
        groups: The groups of tensors to read, as far as it has them; all by default. The others are not looked at.
        owner: The run that it should belong to; not checked if None, or if the state does not name its `run`.

    Raises:
        CheckpointError: If it is missing, damaged or of another format; the message names the file, the fault and
            the last earlier checkpoint that is intact.
        OSError: If a file cannot be opened or read.
    """
    try:
        return read(path, groups, owner)
    except CheckpointError as error:
        before = [name for name in list_names(path.parent) if _make_sort_key(name) < _make_sort_key(path.name)]
        whole, _ = _find_intact(path.parent, before, groups, owner)
        offer = f"the last intact one before it is {whole.path}" if whole else "there is no intact one before it"
        raise CheckpointError(f"checkpoint {path}: {error}; {offer}") from error


def read(
    path: Path, groups: Collection[str] | None = None, owner: str | None = None, *, mapped: bool = False
) -> Checkpoint:
    """Reads and verifies a checkpoint like `load`, without looking for earlier ones.

    Args:
        path: Its folder.
        groups: See `load`.
        owner: See `load`.
        mapped: Whether tensors stay in their files until they are looked up; these must then stay as they are.

    Raises:
        CheckpointError: If it is missing, damaged or of another format; the message names the file and the fault.
        OSError: If a file cannot be opened or read.
    """
    folder = _find_folder(path)
    if not _is_present(folder):
        raise CheckpointError("the folder does not exist")
    manifest = parse_manifest(read_limited(folder / MANIFEST, _MANIFEST_LIMIT))
    tensors = {
        group: _read_group(folder, manifest, group, mapped)
        for group in manifest.keys
        if groups is None or group in groups
    }
    state = parse_state(read_data(folder / STATE, manifest.files[STATE]))
    if None not in (owner, state.get("run")) and state["run"] != owner:
        raise CheckpointError(f"it belongs to the run {state['run']}, this is the run {owner}")
    cursor = state.get("cursor")
    step = cursor.get("step") if isinstance(cursor, Mapping) else None
    if type(step) is int and read_step(path.name) not in (step, math.inf):
        raise CheckpointError(f"it was written at step {step}, so its name should be step-{step:08d}")
    return Checkpoint(tensors, state)


class Latest(NamedTuple):
    """The last intact checkpoint of a directory.

    Args:
        path: Its folder.
        checkpoint: Its content.
        faults: The faults of the checkpoints after it, by name.
    """

    path: Path
    checkpoint: Checkpoint
    faults: Mapping[str, str]


def read_latest(
    directory: Path, groups: Collection[str] | None = None, owner: str | None = None, *, mapped: bool = False
) -> Latest | None:
    """Reads the last intact checkpoint, also while another process writes newer ones and removes this one.

    Args:
        directory: The folder of checkpoints.
        groups: See `load`. Damage of other groups does not matter.
        owner: See `load`.
        mapped: See `read`.

    Returns:
        The checkpoint; None if there are no checkpoints.

    Raises:
        CheckpointError: If there are checkpoints but none is intact.
        OSError: If a file cannot be opened or read.
    """
    for _ in range(_RETRIES):
        entries = _list_entries(directory)
        latest, faults = _find_intact(directory, _find_names(directory, entries), groups, owner, mapped)
        if latest and not faults:
            return latest
        if entries != _list_entries(directory):  # a writer may have replaced what is missing: there is a newer one
            continue
        if faults and not latest:
            listed = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
            raise CheckpointError(f"{directory} has no intact checkpoint: {listed}")
        return latest
    raise CheckpointError(f"{directory}: checkpoints are replaced faster than they can be read")


def list_names(directory: Path) -> list[str]:
    """Lists the names of the checkpoints that have a manifest; numbers in names are sorted by value.

    Raises:
        OSError: If the folder cannot be read.
    """
    names = _find_names(directory, _list_entries(directory))
    return [name for name in names if _is_present(_find_folder(directory / name) / MANIFEST)]


def find_latest(directory: Path) -> Path | None:
    """Finds the last checkpoint that can be verified, block by block; None if there is none.

    Raises:
        OSError: If a file cannot be opened or read.
    """
    latest, _ = _find_intact(directory, list_names(directory), None, None, mapped=True)
    return latest.path if latest else None


@checked
def prune(directory: Path, keep: PositiveInt, spare: Collection[str] = ()) -> None:
    """Removes all checkpoints except the last `keep` and those named in `spare`.

    Raises:
        ValueError: If `keep` is below 1.
    """
    remove(directory, [name for name in list_names(directory)[:-keep] if name not in spare])
    _remove_frozen(directory)


def remove(directory: Path, names: Collection[str]) -> None:
    """Removes checkpoints by name."""
    for name in names:
        _remove(_find_folder(directory / name))


def set_aside(directory: Path, path: Path) -> dict[str, str]:
    """Renames the checkpoints after `path`, which are damaged, so that a resumed run can write them again.

    Returns:
        Their new names, `damaged-NAME`, by their old ones.
    """
    moved = {}
    for name in _find_names(directory, _list_entries(directory)):
        if _make_sort_key(name) > _make_sort_key(path.name):
            tried = (f"damaged-{name}{ending}" for ending in _make_endings())
            moved[name] = next(new for new in tried if not _is_present(directory / new))
            os.replace(_find_folder(directory / name), directory / moved[name])
    if moved:
        sync_folder(directory)
    return moved


def recover(directory: Path) -> None:
    """Cleans up after a killed writer; to be called by the process that will write next."""
    for entry in sorted(directory.iterdir()):
        old = _OLD.fullmatch(entry.name)
        if not old and find_final_name(entry.name) is None:
            continue
        if old and not (directory / old[1]).exists():
            os.replace(entry, directory / old[1])
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    sync_folder(directory)


def _write(folder: Path, snapshot: Snapshot, patience: Patience) -> None:
    files = write_files(folder, snapshot)
    files[STATE] = FileEntry(*write_file(folder / STATE, snapshot.state))
    files |= collect(folder, snapshot.ranks - {0}, patience)
    write_file(folder / MANIFEST, dump_manifest(Manifest(files, snapshot.keys)))
    sync_folder(folder)


def _install(temporary: Path, path: Path) -> None:
    aside = _get_aside(path)
    if path.exists():
        os.replace(path, aside)
    os.replace(temporary, path)
    sync_folder(path.parent)
    if aside.exists():
        shutil.rmtree(aside)


def _remove(folder: Path) -> None:
    """Removes a checkpoint; it is renamed first, so that readers never see a part of it."""
    hidden = make_temporary_path(folder.with_name(folder.name.strip(".")))
    os.replace(folder, hidden)
    shutil.rmtree(hidden)


def _remove_frozen(directory: Path) -> None:
    """Removes the files that checkpoints shared and none refers to any more."""
    entries = _list_entries(directory)
    if frozen := sorted(name for name in entries if name.startswith(FROZEN)):
        paths = [directory / name / MANIFEST for name in entries]
        kept = b"".join(path.read_bytes() for path in paths if path.is_file())
        for name in frozen:
            if name.encode() not in kept:
                (directory / name).unlink()


def _get_aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _find_folder(path: Path) -> Path:
    """Finds the folder that now holds the checkpoint `path`: a writer killed while replacing it left it aside."""
    return path if path.exists() or not _get_aside(path).exists() else _get_aside(path)


def _list_entries(directory: Path) -> set[str]:
    """Lists the names of all files and folders in a directory; none if it is absent."""
    try:
        return set(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _find_names(directory: Path, entries: Collection[str]) -> list[str]:
    """Finds the names of the checkpoints among the entries of a directory, whatever state they are in, in order."""
    names = {name for name in entries if _NAME.fullmatch(name)}
    names |= {old[1] for name in entries if (old := _OLD.fullmatch(name))}
    return sorted((name for name in names if _has_files(_find_folder(directory / name))), key=_make_sort_key)


def _has_files(folder: Path) -> bool:
    """Whether a folder has a file of a checkpoint."""
    return any(name in (MANIFEST, STATE) or name.endswith(".safetensors") for name in _list_entries(folder))


def _is_present(path: Path) -> bool:
    """Whether there is a file or folder; an error says nothing about that, and is raised."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _make_endings() -> Iterator[str]:
    yield ""
    yield from (f"-{number}" for number in count(2))


def _make_sort_key(name: str) -> list[tuple[int, int, str]]:
    return [(1, int(piece), piece) if piece.isdecimal() else (0, 0, piece) for piece in re.split(r"([0-9]+)", name)]


def _find_intact(
    directory: Path, names: list[str], groups: Collection[str] | None, owner: str | None, mapped: bool = False
) -> tuple[Latest | None, dict[str, str]]:
    """Reads the last intact one of some checkpoints; returns it, or None, and the faults of those after it."""
    faults: dict[str, str] = {}
    for name in reversed(names):
        try:
            return Latest(directory / name, read(directory / name, groups, owner, mapped=mapped), faults), faults
        except CheckpointError as error:
            faults[name] = str(error)
    return None, faults


def _read_group(folder: Path, manifest: Manifest, group: str, mapped: bool) -> Mapping[str, Tensor]:
    files = {file: entry for file, entry in manifest.files.items() if entry.group == group}
    read = {
        file: read_tensors((folder.parent if entry.frozen else folder) / file, entry, mapped=mapped)
        for file, entry in files.items()
    }
    joined = join(read, manifest, group)
    return joined if mapped else joined.assemble()
