"""The study: VAEs that differ only in their prior, trained for as many steps, and their held-out bounds.

    OUT/figures/vamp-0.json  a run's bound on held-out pictures, by importance weights, and its ELBO

`examples.studies.comparison` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import modkit
from examples.priors.verdict import claims, report
from examples.studies.comparison import compare
from modkit import Run, Spec, evaluate_run, use
from modkit.metrics import Bound

__all__ = ["PRIORS", "Plan", "carry_out", "read_spec"]

PRIORS: Mapping[str, Any] = {
    "normal": None,
    "vamp": use("vamp", inputs=200),
    "mixture": use("mixture", components=200),
}
"""The priors by name; None is the VAE's own, N(0, I), whose KL is in closed form."""


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        steps: Number of steps of a run.
        seeds: Number of runs a system.
        draws: Number of draws of the importance-weighted bound.
        num: Number of held-out pictures that it is measured on.
        overrides: Of all specs.

    Raises:
        ValueError: If a number is out of range.
    """

    steps: int = 10_000
    seeds: int = 3
    draws: int = 500
    num: int = 500
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.steps, self.seeds, self.draws) < 1 or self.num < 2:
            given = f"{self.steps}, {self.seeds}, {self.draws} and {self.num}"
            raise ValueError(f"Plan expects a step, a seed and a draw or more and num of at least 2, got {given}")


def read_spec(prior: str, overrides: tuple[str, ...] = ()) -> Spec:
    """The spec of a VAE with a prior, both trained jointly."""
    spec = modkit.load_spec(Path(__file__).parent / "vae.yaml", overrides).with_value("name", prior)
    if PRIORS[prior] is None:
        return spec
    return spec.with_value("model", use("latent", autoencoder=spec.model, prior=PRIORS[prior], joint=True))


def carry_out(plan: Plan, out: Path, say: Callable[[str], None] = print) -> str:
    """Does what is not done yet, and returns the report, see `examples.studies.command.run_study`."""
    words = (f"train.steps={plan.steps}", *plan.overrides)
    seeds = dict.fromkeys(PRIORS, plan.seeds)
    make_spec, measure = partial(read_spec, overrides=words), partial(_measure, plan=plan)
    return compare(plan, out, seeds, make_spec, measure, claims, report, say)


def _measure(path: Path, plan: Plan) -> dict[str, float]:
    """The bound and the ELBO of a run, in nats per held-out picture, and its number of weights."""
    run = Run.open(path)
    scores = [evaluate_run(run, metrics=[Bound(num=num)], num=plan.num, device="cpu").scores for num in (plan.draws, 1)]
    bound, elbo = (next(iter(found.values())).value for found in scores)
    return {"bound": bound, "ELBO": elbo, "weights": sum(one.numel() for one in modkit.load(run).parameters())}
