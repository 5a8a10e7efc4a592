"""The study: diffusion models of one network under schedules that are learned or fixed, on the same budget.

    OUT/figures/learned-0.json  a run's bound on held-out pictures, the ends of its schedule and its steps

`examples.studies.timed` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import modkit
from examples.learned_noise.verdict import claims, report
from examples.studies.timed import TimedPlan, compare_timed
from modkit import Run, Spec, evaluate_run
from modkit.diffusion.schedules import find_noise_range
from modkit.metrics import Bound

__all__ = ["SYSTEMS", "Plan", "carry_out", "read_spec"]

SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "log-linear": ("model.schedule=log-linear",),
    "learned": (),
    "cosine": ("model.schedule=cosine", "model.loss_weight=simple"),
}
"""Overrides of the spec by system: what the learned schedule starts as, and what a model has by default."""


@dataclass(frozen=True)
class Plan(TimedPlan):
    """What is trained and measured, see `TimedPlan`."""

    seconds: float = 180.0
    seeds: int = 3
    draws: int = 8


def read_spec(system: str, overrides: tuple[str, ...] = ()) -> Spec:
    """The spec of a system."""
    words = (*SYSTEMS[system], *overrides)
    return modkit.load_spec(Path(__file__).parent / "noise.yaml", words).with_value("name", system)


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    read, measure = partial(read_spec, overrides=plan.overrides), partial(_measure, plan=plan)
    return compare_timed(plan, out, SYSTEMS, read, measure, claims, report, say)


def _measure(path: Path, plan: Plan) -> dict[str, float]:
    """The bound of a run in nats per held-out picture, the ends of its schedule, and its steps."""
    run = Run.open(path)
    (bound,) = evaluate_run(run, metrics=[Bound(num=plan.draws)], num=plan.num, device="cpu").scores.values()
    model: Any = modkit.load(run)
    low, high = find_noise_range(model.schedule)
    steps = run.read_metrics()[-1]["step"]
    return {"bound": bound.value, "sigma_min": low, "sigma_max": high, "steps": steps}
