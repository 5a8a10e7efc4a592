"""Auto and continuous: the grid that suits most schedules of a sort, on their table or between its indices."""

from __future__ import annotations

from modkit.grids.even import Even
from modkit.grids.indices import Trailing
from modkit.grids.levels import Karras
from modkit.kinds import Grid, Schedule, ScheduleExtras, read_extras
from modkit.types import TensorType

__all__ = ["choose_continuous", "choose_grid"]


def choose_grid(schedule: Schedule, x: TensorType | None = None) -> Grid:
    """Chooses `trailing` on a table, and what `choose_continuous` does without one.

    Examples:
        >>> from modkit.diffusion.schedules import EDM, Flow, Linear
        >>> [type(choose_grid(schedule)).__name__ for schedule in (Linear(), EDM(), Flow())]
        ['Trailing', 'Karras', 'Even']
    """
    return choose_continuous(schedule, x) if schedule.num is None else Trailing(schedule, x)


def choose_continuous(schedule: Schedule, x: TensorType | None = None) -> Grid:
    """Chooses `even` on a straight schedule (`ScheduleExtras.straight`), and `karras` elsewhere, on a table too.

    Examples:
        >>> from modkit.diffusion.schedules import EDM, Flow, Linear
        >>> [type(choose_continuous(schedule)).__name__ for schedule in (Linear(), EDM(), Flow())]
        ['Karras', 'Karras', 'Even']
    """
    return (Even if read_extras(schedule, ScheduleExtras).straight else Karras)(schedule, x)
