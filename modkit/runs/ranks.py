"""What a launcher such as torchrun tells each process by variables: its number, and how many there are."""

from __future__ import annotations

import os

__all__ = ["ProcessError", "count_launched", "find_local_rank", "find_rank"]


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
