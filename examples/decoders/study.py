"""The study: one encoder, latent and prior, with a decoder that draws digits and one that computes their mean.

    diffusion  p(x | z) is a diffusion model given z
    mse        p(x | z) is a Gaussian of unit scale around what a decoder makes of z

    OUT/figures/mse-0.json  a run's scores on the held-out digits, its weights, and its steps

`examples.studies.timed` has the rest. Three quarters of a run's time are the autoencoder's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import modkit
from examples.decoders.verdict import claims, report
from examples.studies.budget import fit_budget
from examples.studies.comparison import compare
from examples.studies.timed import TimedPlan
from modkit import Run, Spec, evaluate_run

__all__ = ["SYSTEMS", "Plan", "carry_out", "read_spec"]

SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "diffusion": (),
    "mse": (
        "model.autoencoder={use: autoencoder, encoder: {use: mlp, width: 256}, bottleneck: {use: gaussian, "
        "channels: 8}, decoder: {use: mlp, width: 240, depth: 3}, weights: {kl: 1e-3}}",
    ),
}
"""Overrides of the spec by system. Both have as many weights, within a hundredth."""

_SHARES = (3.0, 1.0)


@dataclass(frozen=True)
class Plan(TimedPlan):
    """What is trained and measured, see `TimedPlan`."""

    seconds: float = 600.0
    seeds: int = 3
    draws: int = 1
    num: int = 360


def read_spec(system: str, overrides: tuple[str, ...] = ()) -> Spec:
    """The spec of a system."""
    words = (*SYSTEMS[system], *overrides)
    return modkit.load_spec(Path(__file__).parent / "decoders.yaml", words).with_value("name", system)


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""

    def make_spec(system: str) -> Spec:
        spec = read_spec(system, plan.overrides)
        return fit_budget(spec, plan.seconds, out / "budget.json", shares=_SHARES, trial=plan.trial)

    seeds = dict.fromkeys(SYSTEMS, plan.seeds)
    return compare(plan, out, seeds, make_spec, partial(_measure, plan=plan), claims, report, say)


def _measure(path: Path, plan: Plan) -> dict[str, float]:
    """Scores of samples and of reconstructions of the held-out digits."""
    run = Run.open(path)
    wanted = ["fd", "prdc", "reconstruction", "reconstruction-fd"]
    scores = evaluate_run(run, metrics=wanted, num=plan.num, device="cpu").scores
    found = {name.partition(" (")[0]: score.value for name, score in scores.items()}
    weights = sum(one.numel() for one in modkit.load(run).parameters())
    return {**found, "weights": weights, "steps": run.read_metrics()[-1]["step"]}
