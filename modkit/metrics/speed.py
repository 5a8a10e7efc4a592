"""The speed of training, from the times that a run records.

    rate = (steps between two rows) / (seconds between them),   median over all consecutive rows

The clock of a run restarts with each stage and each time it is resumed; only rows of the same clock are compared.
Pictures and checkpoints are written between some rows, which the median ignores.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import NamedTuple

from modkit.metrics.cost import median
from modkit.runs.files import read_regular
from modkit.runs.run import Run
from modkit.specs.node import Node
from modkit.specs.spec import Spec
from modkit.types import Score

__all__ = ["Tick", "measure_training_speed", "read_timing"]

_SETTINGS = ("device", "batch_size", "accumulate", "precision", "compile", "recompute")


class Tick(NamedTuple):
    """A row of a run's timing."""

    step: int  # steps since the run's first
    seconds: float  # seconds since the clock started
    start: int  # the step at which the clock started


def measure_training_speed(run: Run) -> Score | None:
    """Computes the score `training steps/s` of a run; returns None if no two rows have the same clock.

    Raises:
        ValueError: If a row of `timing.jsonl` is damaged; the message names it.
    """
    rates = [
        (b.step - a.step) / (b.seconds - a.seconds)
        for a, b in pairwise(read_timing(run))
        if a.start == b.start and b.step > a.step and b.seconds > a.seconds
    ]
    if not rates:
        return None
    value, error = median(rates)
    train = Spec.from_yaml(run.spec_text).train or Node({})
    settings = {name.replace("_", " "): train[name] for name in _SETTINGS if name in train}
    return Score(value, error, "higher", settings=settings)


def read_timing(run: Run) -> list[Tick]:
    """Reads the rows of `timing.jsonl`, without a last line that an interruption left incomplete.

    Raises:
        ValueError: If a row is damaged; the message names it.
    """
    path = run.path / "timing.jsonl"
    ticks = []
    for number, line in enumerate(read_regular(path).split(b"\n")[:-1] if path.exists() else [], 1):
        try:
            row = json.loads(line)
            step, seconds, rate = int(row["step"]), float(row["seconds"]), float(row["steps_per_second"])
            ticks.append(Tick(step, seconds, round(step - seconds * rate)))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError(f"{path}:{number} is not a row of timing: {error!r}") from error
    return ticks
