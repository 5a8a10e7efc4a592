"""Steps: how many of them a grid can have."""

from __future__ import annotations

from modkit.kinds import Schedule

__all__ = ["check_steps"]

_MOST = 100_000


def check_steps(grid: object, steps: int, schedule: Schedule, *, of_table: bool = True) -> None:
    """Checks a number of steps.

    Args:
        grid: The grid, whose class the message names.
        steps: The number of steps.
        schedule: The schedule.
        of_table: Whether a table bounds the number by its length.

    Raises:
        ValueError: If it is below 1, above 100,000, or above the table's length.
    """
    num = schedule.num if of_table else None
    if not 1 <= steps <= (num or _MOST):
        place = f" on a table of {num}" if num else ""
        raise ValueError(f"{type(grid).__name__} expects steps in [1, {num or _MOST}]{place}, got {steps}")
