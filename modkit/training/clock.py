"""The clock of a training: the times and rates of its steps, which differ between runs of one seed."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """Measures the steps of a stage since this process began or resumed it.

    Args:
        step: The step at which the clock starts.
        batch_size: Samples per step, over all processes.

    Examples:
        >>> row = Clock(4, batch_size=32).read(6)
        >>> row["samples_per_second"] == 32 * row["steps_per_second"]
        True
    """

    def __init__(self, step: int, batch_size: int) -> None:
        self._step, self._batch_size, self._started = step, batch_size, time.perf_counter()

    def read(self, step: int) -> dict[str, float]:
        """Returns the seconds until a later step is done, and the rates of steps and samples since the start."""
        seconds = time.perf_counter() - self._started
        rate = (step - self._step) / seconds
        return {"seconds": seconds, "steps_per_second": rate, "samples_per_second": rate * self._batch_size}
