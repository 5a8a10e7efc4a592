r"""Budgets: how many steps of each stage fit into so many seconds of one processor core.

    n_i = T s_i / c_i              of stages with shares s_i of the time, sum s_i = 1
    n_i = T r_i / sum_j r_j c_j    of stages whose steps stand in the ratio r_i that the spec gives

c_i is the mean CPU time of a step of stage i, the least of a few rounds. It is measured by `time.process_time` in one
thread, after a warm-up, so that what else the machine does counts little. A player that starts late (a VQGAN's critic)
is counted as if it had started at once: a run is rather shorter than its budget than longer. What is not a step
(preparation, pictures, checkpoints) is not counted.
"""

from __future__ import annotations

import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

import modkit
from modkit import Spec
from modkit.progress import Silent
from modkit.runs.files import hash_data, replace_file
from modkit.runs.hold import Hold

__all__ = [
    "Draws",
    "Trial",
    "fit_budget",
    "fit_steps",
    "keep_costs",
    "measure_costs",
    "one_thread",
    "share_time",
    "stages",
    "time_sampling",
    "time_step",
]

_LONG = 10**6  # steps of a trial's stage, which is stopped long before


@dataclass(frozen=True)
class Trial:
    """How a step's cost is measured.

    Args:
        warmup: Steps before the clock starts.
        steps: Least number of steps in a round; a lazy term (R1 each 16) wants a multiple of its `every`.
        seconds: Least CPU time of a round.
        rounds: Rounds, of which the fastest counts.
    """

    warmup: int = 10
    steps: int = 48
    seconds: float = 1.0
    rounds: int = 3


class Draws(Protocol):
    """What draws samples, such as a Model."""

    def sample(self, num: int, *, seed: int, batch_size: int) -> object:
        """Draws so many samples by a seed, in batches."""
        ...


def fit_budget(
    spec: Spec, seconds: float, file: Path, *, shares: Sequence[float] | None = None, trial: Trial | None = None
) -> Spec:
    """A spec whose stages together take `seconds` of CPU time.

    The trial's figures are kept in `file`, JSON, under the spec's name, and taken from there the next time: all seeds
    of a system, and a study that goes on after a kill, use the same steps. A spec that has changed is tried anew.
    Of processes that share a file, one tries and the others wait.

    Args:
        spec: The spec; where `shares` is not given, the steps that it says give the stages' ratio.
        seconds: The budget of all stages.
        file: Where the figures are kept; several specs may share it.
        shares: Share of the time by stage.
        trial: How to measure.

    Raises:
        ValueError: If the shares are not one positive number a stage, or `file` holds anything else.
    """
    cost = keep_costs(file, spec.name, _digest(spec), lambda: measure_costs(spec, trial or Trial()))
    return fit_steps(spec, seconds, cost, shares=shares)


def keep_costs(file: Path, name: str, digest: str, measure: Callable[[], Sequence[float]]) -> list[float]:
    """The CPU time of a step of each stage of a system, measured where `file` has none of it; see `fit_budget`.

    Args:
        file: Where the figures of all systems are kept.
        name: The system's name.
        digest: Tells it from what it was when it was measured.
        measure: Measures it.

    Raises:
        ValueError: If `file` holds anything else.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with Hold(file.parent, lambda: None):
        kept = _read(file)
        found = kept.get(name)
        if found is None or found["spec"] != digest:
            found = {"spec": digest, "seconds a step": measure()}
            replace_file(file, json.dumps({**kept, name: found}, indent=1).encode())
    return found["seconds a step"]


def fit_steps(spec: Spec, seconds: float, cost: Sequence[float], *, shares: Sequence[float] | None = None) -> Spec:
    """A spec with the steps of each stage set, at least 1, so that all together take `seconds`.

    Args:
        spec: The spec.
        seconds: The budget.
        cost: Seconds a step by stage, infinite for a stage that gets one step.
        shares: Share of the time by stage; where not given, the spec's steps give the stages' ratio.

    Raises:
        ValueError: If a number is missing or not positive.
    """
    given = stages(spec)
    steps = [int(stage["steps"]) for stage in given]
    for name, values in (("cost", cost), ("shares", shares or [1.0] * len(given)), ("steps", steps)):
        if len(values) != len(given) or not all(value > 0 for value in values):
            raise ValueError(
                f"fit_steps expects a positive number a stage, {len(given)}, in {name}, got {list(values)}"
            )
    if shares is None:
        taken = sum(ratio * each for ratio, each in zip(steps, cost) if math.isfinite(each))
        fit = [seconds / taken * ratio if math.isfinite(each) else 0.0 for ratio, each in zip(steps, cost)]
    else:
        fit = [seconds * share / sum(shares) / each for share, each in zip(shares, cost)]
    return _staged(spec, [{**stage, "steps": max(1, round(n))} for stage, n in zip(given, fit)])


def share_time(stages: int) -> tuple[float, ...]:
    """The shares of the time of so many stages: a first stage of several takes a third, the others take the rest.

    Examples:
        >>> share_time(1), share_time(2), share_time(3)
        ((1.0,), (1.0, 2.0), (1.0, 1.0, 1.0))
    """
    return (1.0, *[2.0 / (stages - 1)] * (stages - 1)) if stages > 1 else (1.0,)


def measure_costs(spec: Spec, trial: Trial) -> list[float]:
    """The CPU time of a step of each stage, in seconds, measured now; infinite where a stage takes no steps."""
    given = stages(spec)
    found = []
    with one_thread():
        for number in range(len(given)):
            played = [{**stage, "steps": _LONG if index == number else 0} for index, stage in enumerate(given)]
            clock = _Clock(trial)
            with tempfile.TemporaryDirectory() as folder:
                with suppress(_Enough):
                    modkit.train(_quiet(_staged(spec, played)), Path(folder) / "trial", evaluate=False, progress=clock)
            found.append(min(clock.rounds, default=math.inf))  # a mixture is fitted, not trained
    return found


def time_step(step: Callable[[], object], trial: Trial) -> float:
    """The CPU time of a step of a training that has no spec, in seconds, measured now.

    Args:
        step: Takes a step.
        trial: How to measure.
    """
    clock = _Clock(trial)
    with one_thread(), suppress(_Enough):
        while True:
            step()
            clock.step(None)
    return min(clock.rounds)


def stages(spec: Spec) -> list[dict[str, Any]]:
    """The stages of a spec as plain data, each with its `players` and `steps`: the model's own where it names none."""
    train: Any = spec.train or {}
    usual = train.get("steps", 2000)
    written = train.get("stages") or [{"players": list(patterns)} for patterns in modkit.build(spec).stages()]
    return [{"steps": usual, **stage} for stage in written]


@contextmanager
def one_thread() -> Iterator[None]:
    """A single thread of torch's computes inside, so that CPU time is the time of a machine for itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def time_sampling(models: Mapping[str, Draws], num: int, *, rounds: int, batch_size: int) -> dict[str, float]:
    """Medians of the CPU seconds that `num` samples take; the models take turns, and a first round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            model.sample(num, seed=number, batch_size=batch_size)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(spent[1:]) for name, spent in seconds.items()}


class _Enough(Exception):
    """The trial has seen what it wanted."""


class _Clock(Silent):
    """A `Progress` that notes the CPU time of steps and ends training after enough of them."""

    def __init__(self, trial: Trial) -> None:
        self.rounds: list[float] = []
        self._trial = trial
        self._done, self._start = -trial.warmup, time.process_time()

    def step(self, losses: Mapping[str, float] | None) -> None:
        """Ends a round after enough steps, and training after enough rounds."""
        self._done += 1
        if self._done <= 0:
            self._start = time.process_time()
            return
        elapsed = time.process_time() - self._start
        if self._done < self._trial.steps or elapsed < self._trial.seconds:
            return
        self.rounds.append(elapsed / self._done)
        self._done, self._start = 0, time.process_time()
        if len(self.rounds) == self._trial.rounds:
            raise _Enough


def _staged(spec: Spec, given: Sequence[Mapping[str, object]]) -> Spec:
    return spec.with_value("train.stages", [dict(stage) for stage in given])


def _quiet(spec: Spec) -> Spec:
    """A spec that writes nothing while its steps are timed, and whose players all start at once."""
    for place in ("samples", "checkpoints", "log"):
        spec = spec.with_value(f"train.{place}.every", _LONG)
    train: Any = spec.train or {}
    written = dict(train.get("players") or {})
    everyone = "*"
    while everyone in written:
        everyone += "*"
    written[everyone] = {"start": 0}  # the last pattern overrides those before
    return spec.with_value("train.players", written).with_value("train.samples.num", 1)


def _digest(spec: Spec) -> str:
    """A hash of all that a step's cost depends on: neither the seed nor the number of steps."""
    same = _staged(spec.with_value("train.seed", 0), [{**stage, "steps": 1} for stage in stages(spec)])
    return hash_data(same.with_value("train.steps", 1).to_yaml())


def _read(file: Path) -> dict[str, dict[str, Any]]:
    if not file.exists():
        return {}
    try:
        kept = json.loads(file.read_bytes())
        if not isinstance(kept, dict) or not all("seconds a step" in found for found in kept.values()):
            raise ValueError("no figures of a trial")
    except (ValueError, TypeError) as error:
        raise ValueError(f"fit_budget expects figures of its own in {file}: {error}") from error
    return kept
