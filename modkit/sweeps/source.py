"""Sources of trials: a fixed list, and what names the next trial by what is known of the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modkit.sweeps.trials import Trial

__all__ = ["TrialSource"]


class TrialSource:
    """The trials of a sweep: these. A search overrides the methods and names further trials while the sweep goes on.

    Args:
        trials: Trials that are known before the sweep.

    Examples:
        >>> TrialSource(()).begin(Path("sweeps/ldm"))
        []
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials

    @property
    def num(self) -> int:
        """Number of trials at the end."""
        return len(self._trials)

    def begin(self, path: Path) -> list[Trial]:
        """Lists the trials that are known, also from earlier starts in the directory, which this process holds."""
        return list(self._trials)

    def ask(self, pending: Sequence[Trial]) -> Trial | None:
        """Names the next trial, or None if there is none.

        Args:
            pending: The trials that wait or are being trained or evaluated. Of every other trial, the run has a report,
                is pruned or failed.
        """
        return None

    def is_pruned(self, run: str) -> bool:
        """Tells whether a run is not worth its training, which is then ended. This is asked at every look at it."""
        return False
