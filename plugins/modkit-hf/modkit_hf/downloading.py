"""Runs from the Hub: they lie in huggingface_hub's cache, a folder for each commit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from modkit.runs.files import fill_folder
from modkit_hf.address import Address
from modkit_hf.failures import explain_failures
from modkit_hf.files import REQUIRED, TRAVELLING, check_run, copy_run, list_left, warn_left

__all__ = ["Found", "locate", "pull"]


class Found(NamedTuple):
    """A run from the Hub: its folder on this machine, and the address of its commit."""

    folder: Path
    address: str


def locate(address: str, *, download: bool) -> Found:
    """Locates a run of the Hub, for `modkit.load` and specs.

    Args:
        address: `hf://USER/NAME@REVISION`; the revision is `main` by default.
        download: Whether to ask the Hub. If not, or with HF_HUB_OFFLINE, a branch means the commit that was downloaded
            last.

    Raises:
        ValueError: If there is no such run, it is damaged or, without `download`, not on this machine.
        OSError: If the Hub cannot be reached.
    """
    wanted = Address.parse(address)
    asks = download and not (wanted.pinned or constants.HF_HUB_OFFLINE)
    found = None if asks else _find(wanted)
    if found is None and not download:
        raise ValueError(
            f"{wanted} is not on this machine; download it with: modkit pull {wanted.repo}@{wanted.revision}"
        )
    return found or _download(wanted)


def pull(address: str, out: str | os.PathLike[str] | None = None) -> Found:
    """Downloads a run of the Hub, and copies it to a folder.

    Args:
        address: `USER/NAME@REVISION`, with or without `hf://`.
        out: The folder, absent or empty; by default, the run is only kept for addresses.

    Returns:
        The folder, and the address of the commit.

    Raises:
        ValueError: If the folder is not empty, there is no such run, or it is damaged.
        OSError: If the Hub cannot be reached.
    """
    if out is None:
        return locate(address, download=True)
    with fill_folder(Path(out), "pull") as folder:
        found = locate(address, download=True)
        copy_run(found.folder, folder)
    return found._replace(folder=Path(out))


def _find(wanted: Address) -> Found | None:
    """Finds a run that was downloaded before, as a whole."""
    try:
        folder = _read_snapshot(wanted, local_files_only=True)
    except LocalEntryNotFoundError:
        return None
    whole = all((folder / name).is_file() for name in REQUIRED)
    return Found(folder, str(wanted._replace(revision=folder.name))) if whole else None


def _download(wanted: Address) -> Found:
    """Downloads the files of a run that travel, says which others there are, and checks their contents."""
    with explain_failures(wanted, "downloaded"):
        info = HfApi().model_info(wanted.repo, revision=wanted.revision)
    names = [one.rfilename for one in info.siblings or ()]
    if lacking := [name for name in REQUIRED if name not in names]:
        raise ValueError(f"{wanted} expects a run that `modkit push` wrote, got files without {', '.join(lacking)}")
    warn_left(str(wanted), list_left(names))
    with explain_failures(wanted, "downloaded"):
        folder = _read_snapshot(wanted)
    try:
        check_run(folder)
    except ValueError as error:
        _drop(folder)
        raise ValueError(f"{wanted} is damaged on the Hub or was on its way: {error}") from error
    return Found(folder, str(wanted._replace(revision=folder.name)))


def _read_snapshot(wanted: Address, *, local_files_only: bool = False) -> Path:
    """Reads the folder of a commit, with the files that travel."""
    patterns = list(TRAVELLING)
    return Path(
        snapshot_download(
            wanted.repo, revision=wanted.revision, allow_patterns=patterns, local_files_only=local_files_only
        )
    )


def _drop(folder: Path) -> None:
    """Removes the files of a damaged run from the cache, so that they are downloaded anew."""
    for name in REQUIRED:
        (folder / name).resolve().unlink(missing_ok=True)
        (folder / name).unlink(missing_ok=True)
