"""The study: systems that differ from one VAE in a few words, trained on the same budget, and their held-out bounds.

    OUT/figures/ladder-0.json  a run's bound on held-out pictures, by importance weights, and its ELBO

`examples.studies.timed` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import modkit
from examples.bounds.verdict import claims, report
from examples.studies.timed import TimedPlan, compare_timed
from modkit import Run, Spec, evaluate_run
from modkit.metrics import Bound

__all__ = ["SYSTEMS", "Plan", "carry_out", "read_spec"]

_SMALL = "train.batch_size=64"  # for systems of costly samples, of which too few batches of 256 would fit

SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "VAE": (),
    "IWAE-50": ("model.objective={use: iwae, draws: 50, gradient: doubly-reparametrized}", _SMALL),
    "IAF": (
        "model.encoder.width=200",
        "model.bottleneck.flow={use: chain, layers: [{use: autoregressive, width: 64, depth: 1}, "
        "{use: autoregressive, width: 64, depth: 1, reverse: true}]}",
    ),
    "ladder": (
        "model.encoder.width=80",
        "model.bottleneck={use: ladder, channels: 4, width: 64, groups: [4]}",
        "model.decoder.depth=1",
        _SMALL,
    ),
}
"""Overrides of the spec by system. All have as many weights, within a twentieth."""


@dataclass(frozen=True)
class Plan(TimedPlan):
    """What is trained and measured, see `TimedPlan`."""

    seconds: float = 600.0
    seeds: int = 3
    draws: int = 100


def read_spec(system: str, overrides: tuple[str, ...] = ()) -> Spec:
    """The spec of a system."""
    words = (*SYSTEMS[system], *overrides)
    return modkit.load_spec(Path(__file__).parent / "vae.yaml", words).with_value("name", system.lower())


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    read, measure = partial(read_spec, overrides=plan.overrides), partial(_measure, plan=plan)
    return compare_timed(plan, out, SYSTEMS, read, measure, claims, report, say)


def _measure(path: Path, plan: Plan) -> dict[str, float]:
    """The bound and the ELBO of a run, in nats per held-out picture, its steps, and those that were skipped."""
    run = Run.open(path)
    scores = [evaluate_run(run, metrics=[Bound(num=num)], num=plan.num, device="cpu").scores for num in (plan.draws, 1)]
    bound, elbo = (next(iter(found.values())).value for found in scores)
    last = run.read_metrics()[-1]
    weights = sum(one.numel() for one in modkit.load(run).parameters())
    skipped = sum(last.get("skipped", {}).values())
    return {"bound": bound, "ELBO": elbo, "weights": weights, "steps": last["step"], "skipped": skipped}
