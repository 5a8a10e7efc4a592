"""Addresses of runs, `SCHEME://…`: a plug-in finds or downloads the folder behind one.

A spec is planned and checked without a download, so a run that it names by its address must have been downloaded
before. What is planned keeps the pinned address, which means the same files for ever, also where the one that was
written means others later, as a branch does.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from modkit.parts.targets import find_target
from modkit.runs.files import is_address

if TYPE_CHECKING:
    from modkit.runs.run import Run

__all__ = ["locate", "open_run"]


def locate(address: str, *, download: bool) -> tuple[Path, str]:
    """Locates the run behind an address, by the plug-in that provides its scheme (`modkit_schemes`).

    Args:
        address: The address.
        download: Whether the run may be downloaded. If not, one that was downloaded before is found.

    Returns:
        The run's folder on this machine, and the address of exactly these files.

    Raises:
        ValueError: If no plug-in provides the scheme, there is no such run, or it is not on this machine.
        OSError: If it cannot be downloaded.
    """
    find = find_target("modkit_schemes", "scheme", address.partition("://")[0])
    folder, pinned = find(address, download=download)
    return folder, pinned


def open_run(run: Run | str | os.PathLike[str]) -> Run:
    """Opens a run by its directory or its address, from which it is downloaded; returns one that is open.

    Raises:
        ValueError: As `Run.open` and `locate`.
        OSError: As `locate`.
    """
    from modkit.runs.run import Run

    if isinstance(run, Run):
        return run
    return Run.open(locate(os.fspath(run), download=True)[0] if is_address(run) else run)
