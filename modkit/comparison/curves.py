"""Learning curves: values that a run logged, against the step, the images seen and the wall-clock time.

    images = step * batch_size;    seconds(step) = start of its session + seconds since

`timing.jsonl` counts seconds from the start of each session and stage. Either began at the step

    first = step - seconds * steps_per_second

so a row with a new `first`, or with no more seconds or steps than the row before, belongs to a new session. Work that
was lost when a run was killed counts as time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modkit.metrics.speed import read_timing
from modkit.runs.run import Run

__all__ = ["Curve", "read_clock", "read_curves", "thin"]

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """A logged value."""

    values: Values
    steps: Values  # the step of each value, ascending
    images: Values  # images seen up to each step
    seconds: Values  # seconds of training up to each step; NaN where no time was logged


def read_curves(run: Run, batch_size: int) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Reads the scores and the losses that a run logged, each by name.

    Raises:
        ValueError: If a log is damaged.
    """
    seconds = read_clock(run)
    found: dict[str, dict[str, list[tuple[int, float]]]] = {"scores": {}, "losses": {}}
    for number, row in enumerate(run.read_metrics(), 1):
        try:
            step = int(row["step"])
            for what, by_name in found.items():
                for name, value in _select_numbers(row.get(what)).items():
                    by_name.setdefault(name, []).append((step, value))
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{run.path / 'metrics.jsonl'}:{number} is not a row of metrics: {error!r}") from error
    made = [{name: _make_curve(points, batch_size, seconds) for name, points in found[what].items()} for what in found]
    return made[0], made[1]


def read_clock(run: Run) -> dict[int, float]:
    """Reads the seconds of training up to each step, summed over sessions and stages.

    Raises:
        ValueError: If a complete line is damaged; the message names the line.
    """
    seconds: dict[int, float] = {}
    start = total = since = 0.0
    first: int | None = None
    step = 0
    for tick in read_timing(run):
        if tick.start != first or tick.seconds <= since or tick.step <= step:
            start, first = total, tick.start
        since, step = tick.seconds, tick.step
        total = start + tick.seconds
        seconds[tick.step] = total
    return seconds


def thin(curve: Curve, most: int = 400) -> Curve:
    """Thins a curve to at most `most` points, each the mean of neighbouring values."""
    if len(curve.values) <= most:
        return curve
    edges = np.linspace(0, len(curve.values), most + 1).astype(np.int64)
    sizes = np.diff(edges)
    means = [np.add.reduceat(getattr(curve, name), edges[:-1]) / sizes for name in Curve.__dataclass_fields__]
    return Curve(*means)


def _select_numbers(values: Any) -> dict[str, float]:
    if not isinstance(values, Mapping):
        return {}
    plain = {name: v for name, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}
    return {name: float(value) for name, value in plain.items()}


def _make_curve(points: list[tuple[int, float]], batch_size: int, seconds: Mapping[int, float]) -> Curve:
    points = sorted(points, key=lambda point: point[0])
    steps = np.array([step for step, _ in points], dtype=np.float64)
    times = np.array([seconds.get(step, math.nan) for step, _ in points], dtype=np.float64)
    return Curve(np.array([value for _, value in points], dtype=np.float64), steps, steps * batch_size, times)
