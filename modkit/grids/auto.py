"""Auto and continuous: the grid that suits most schedules of a sort, on their table or between its indices."""

from __future__ import annotations

import torch

from modkit.grids.even import Even
from modkit.grids.indices import Trailing
from modkit.grids.levels import Karras
from modkit.kinds import Grid, Schedule
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
    """Chooses `even` where signal and noise are 1 - t and t, for the flow bends little there; elsewhere `karras`.

    Examples:
        >>> from modkit.diffusion.schedules import EDM, Flow, Linear
        >>> [type(choose_continuous(schedule)).__name__ for schedule in (Linear(), EDM(), Flow())]
        ['Karras', 'Karras', 'Even']
    """
    t = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64, device="cpu")
    alpha, sigma = schedule.scales(t)
    return (Even if torch.allclose(alpha, 1 - t) and torch.allclose(sigma, t) else Karras)(schedule, x)
