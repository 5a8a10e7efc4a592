"""What a launcher such as torchrun tells each process by variables: its number, and how many there are."""

from __future__ import annotations

import os

__all__ = ["ProcessError", "check_restarts", "count_launched", "find_local_rank", "find_rank"]


class ProcessError(RuntimeError):
    """Another process has failed, or has not been heard of for too long."""


def count_launched() -> int:
    """Counts the processes that a launcher has started together with this one, 1 without a launcher.

    Examples:
        >>> count_launched()
        1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def find_rank() -> int:
    """Finds the number of this process among all, 0 without a launcher.

    Examples:
        >>> find_rank()
        0
    """
    return int(os.environ.get("RANK", "0"))


def find_local_rank() -> int:
    """Finds the number of this process among those on its machine, 0 without a launcher."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def check_restarts(resume: bool) -> None:
    """Checks that a training goes on where its launcher starts it again, with the same command.

    Raises:
        ValueError: If the launcher may, and the training is not to be resumed.

    Examples:
        >>> check_restarts(resume=False)  # no launcher has started this process
    """
    if not resume and int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0:
        raise ValueError(
            "training expects --resume where the launcher runs the same command again, as torchrun --max-restarts "
            "does (in Python resume=True), got none: with it, the first start begins the run and later ones resume it"
        )
