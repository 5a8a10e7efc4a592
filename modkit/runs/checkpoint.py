"""Checkpoints: named tensors and a JSON state in a folder that is complete or absent, even if its writer is killed.

    directory/step-00001500/
        model.safetensors, ema.safetensors, …    one file per group of tensors
        state.json                               everything that is not a tensor
        manifest.json                            size and SHA-256 of each file, and its own SHA-256; written last

A checkpoint is written under a temporary name; its files and the folder are synced to the disk, then the folder is
renamed. An existing checkpoint of the same name is first renamed to `.step-00001500.old`, where readers find it until
the new one is in place. What is damaged is never deleted, but renamed to `damaged-step-00001500`. The files are
described in `modkit.runs.encoding`.

A file that is missing, torn or changed is damage, a `CheckpointError`. A file that cannot be opened or read, because of
permissions or a failing disk, is an `OSError`: it says nothing about the checkpoint, and nothing is changed.

Only one process may write to a directory at a time (see `modkit.runs.hold`); any number may read it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

from modkit.runs.encoding import (
    MANIFEST,
    STATE,
    Checkpoint,
    CheckpointError,
    check_name,
    encode,
    parse_manifest,
    parse_state,
    parse_tensors,
)
from modkit.runs.files import (
    find_final_name,
    hash_data,
    make_own_folder,
    make_temporary_path,
    sync_folder,
    write_file,
)

__all__ = [
    "Checkpoint", "CheckpointError", "Latest", "find_latest", "list_names", "load", "prune", "read", "read_latest",
    "recover", "save", "set_aside", "write",
]  # fmt: skip

_NAME = re.compile(r"(?!damaged-)[A-Za-z0-9][A-Za-z0-9._-]*")
_OLD = re.compile(r"\.(.+)\.old")
_MANIFEST_LIMIT = 2**26
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
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
    check_name("a name", name)
    files, manifest = encode(checkpoint)
    make_own_folder(directory)
    recover(directory)
    temporary = make_temporary_path(directory / name)
    try:
        temporary.mkdir()
        _write(temporary, files, manifest)
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
    _write(folder, *encode(checkpoint))


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


def read(path: Path, groups: Collection[str] | None = None, owner: str | None = None) -> Checkpoint:
    """Reads and verifies a checkpoint like `load`, without looking for earlier ones.

    Raises:
        CheckpointError: If it is missing, damaged or of another format; the message names the file and the fault.
        OSError: If a file cannot be opened or read.
    """
    folder = _find_folder(path)
    if not _is_present(folder):
        raise CheckpointError("the folder does not exist")
    files, keys = parse_manifest(_read_file(folder / MANIFEST, None))
    tensors = {}
    for group, row in keys.items():
        if groups is None or group in groups:
            file = f"{group}.safetensors"
            tensors[group] = parse_tensors(file, _read_verified(folder / file, *files[file]), row)
    state = parse_state(_read_verified(folder / STATE, *files[STATE]))
    if None not in (owner, state.get("run")) and state["run"] != owner:
        raise CheckpointError(f"it belongs to the run {state['run']}, this is the run {owner}")
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


def read_latest(directory: Path, groups: Collection[str] | None = None, owner: str | None = None) -> Latest | None:
    """Reads the last intact checkpoint, also while another process writes newer ones and removes this one.

    Args:
        directory: The folder of checkpoints.
        groups: See `load`. Damage of other groups does not matter.
        owner: See `load`.

    Returns:
        The checkpoint; None if there are no checkpoints.

    Raises:
        CheckpointError: If there are checkpoints but none is intact.
        OSError: If a file cannot be opened or read.
    """
    for _ in range(_RETRIES):
        entries = _list_entries(directory)
        latest, faults = _find_intact(directory, _find_names(directory, entries), groups, owner)
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
    """Finds the last checkpoint that can be verified; None if there is none.

    Raises:
        OSError: If a file cannot be opened or read.
    """
    latest, _ = _find_intact(directory, list_names(directory), None, None)
    return latest.path if latest else None


def prune(directory: Path, keep: int, spare: Collection[str] = ()) -> None:
    """Removes all checkpoints except the last `keep` and those named in `spare`.

    Raises:
        ValueError: If `keep` is below 1.
    """
    if keep < 1:
        raise ValueError(f"prune expects to keep at least 1 checkpoint, got keep={keep}")
    for name in list_names(directory)[:-keep]:
        if name not in spare:
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


def _write(folder: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    for file, data in files.items():
        write_file(folder / file, data)
    write_file(folder / MANIFEST, manifest)
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
    directory: Path, names: list[str], groups: Collection[str] | None, owner: str | None
) -> tuple[Latest | None, dict[str, str]]:
    """Reads the last intact one of some checkpoints; returns it, or None, and the faults of those after it."""
    faults: dict[str, str] = {}
    for name in reversed(names):
        try:
            return Latest(directory / name, read(directory / name, groups, owner), faults), faults
        except CheckpointError as error:
            faults[name] = str(error)
    return None, faults


def _read_verified(path: Path, size: int, sha256: str) -> bytes:
    data = _read_file(path, size)
    if hash_data(data) != sha256:
        raise CheckpointError(
            f"{path.name} is damaged: its SHA-256 is {hash_data(data)}, but the manifest expects {sha256}"
        )
    return data


def _read_file(path: Path, size: int | None) -> bytes:
    """Reads a regular file of the given size; the manifest's size is not recorded, so it is limited instead."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe must not block
    except OSError as error:
        if error.errno in _ABSENT:
            raise CheckpointError(f"{path.name} cannot be opened: {error.strerror}") from error
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path.name} is not a regular file")
        if size is not None and status.st_size != size:
            raise CheckpointError(f"{path.name} has {status.st_size} bytes, but the manifest expects {size}")
        if size is None and status.st_size > _MANIFEST_LIMIT:
            raise CheckpointError(f"{path.name} has {status.st_size} bytes, expected at most {_MANIFEST_LIMIT}")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error  # a failed read does not name its file
    finally:
        os.close(descriptor)
