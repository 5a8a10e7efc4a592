"""Auto: the grid that suits most schedules of a sort."""

from __future__ import annotations

from modkit.grids.indices import Trailing
from modkit.grids.levels import Karras
from modkit.kinds import Grid, Schedule
from modkit.types import TensorType

__all__ = ["choose_grid"]


def choose_grid(schedule: Schedule, x: TensorType | None = None) -> Grid:
    """Chooses `trailing` on a table, and `karras` without one.

    Examples:
        >>> from modkit.diffusion.schedules import Flow, Linear
        >>> [type(choose_grid(schedule)).__name__ for schedule in (Linear(), Flow())]
        ['Trailing', 'Karras']
    """
    return Karras(schedule, x) if schedule.num is None else Trailing(schedule, x)
