"""The plans: what is trained on digits and on sprites, how long, and what is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from examples.studies.budget import Trial

__all__ = ["DIGITS", "PLANS", "SPRITES", "Plan", "list_betas"]


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        spec: The spec's file, in `examples`.
        systems: Overrides of the spec by the name of a system.
        rivals: Systems that should be more disentangled than `VAE`.
        seconds: CPU time of a run's training; None for as many steps as the spec says.
        seeds: Number of runs a system.
        fewer: Number of runs of systems that have fewer.
        metrics: What is measured.
        num: Number of held-out samples that it is measured on, None for all up to 10,000.
        trial: How the cost of a step is measured.
        plane: Whether to draw the latents, which have two dimensions, and the decoded plane.
        overrides: Of all specs.
    """

    spec: str
    systems: Mapping[str, tuple[str, ...]]
    rivals: tuple[str, ...] = ()
    seconds: float | None = None
    seeds: int = 3
    fewer: Mapping[str, int] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("latent-usage", "reconstruction")
    num: int | None = None
    trial: Trial = field(default_factory=Trial)
    plane: bool = False
    overrides: tuple[str, ...] = ()


def list_betas(plan: Plan) -> dict[str, float]:
    """Lists the systems that differ in β alone, with it, in ascending order."""
    found = {name: float(words[0].partition("=")[2]) for name, words in plan.systems.items() if _is_beta(words)}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _is_beta(words: tuple[str, ...]) -> bool:
    return len(words) == 1 and words[0].startswith("model.weights.kl=")


def _set_beta(beta: float) -> tuple[str, ...]:
    return (f"model.weights.kl={beta:g}",)


def _let_fall(initial: float, value: float, steps: int) -> str:
    """A weight that presses hard at first, which aligns dimensions with factors, and makes room for more of them."""
    return f"{{use: warmup, initial: {initial:g}, value: {value:g}, steps: {steps}}}"


DIGITS = Plan(
    "beta_vae/digits.yaml",
    {f"β = {beta:g}": _set_beta(beta) for beta in (1.0, 0.5, 0.1, 0.05)},
    plane=True,
)
SPRITES = Plan(
    "beta-vae-sprites.yaml",
    {
        "VAE": _set_beta(1),
        "FactorVAE": (
            f"model.weights={{kl: {_let_fall(4, 1, 8000)}, latent-critic: {_let_fall(35, 5, 24000)}}}",
            "model.judges={latent-critic: {use: latent-critic, network: {use: mlp, width: 256}, against: shuffled}}",
            "train.players.latent-critic.optimizer={use: adam, lr: 1e-3, betas: [0.5, 0.9]}",
        ),
        "β-VAE": (),  # the spec as it stands, whose β falls from 14 to 2
        "β-TCVAE": (
            f"model.weights={{kl: 1, tc: {_let_fall(5, 0.5, 8000)}}}",
            "model.judges={tc: total-correlation}",
        ),
        "β = 0.5": _set_beta(0.5),
        "β = 2": _set_beta(2),
        "β = 4": _set_beta(4),
    },
    rivals=("β-VAE", "β-TCVAE", "FactorVAE"),
    seconds=480.0,
    seeds=5,
    fewer={"β = 0.5": 1, "β = 2": 1, "β = 4": 1},
    metrics=("latent-usage", "reconstruction", "disentanglement"),
)
PLANS = {"digits": DIGITS, "sprites": SPRITES}
