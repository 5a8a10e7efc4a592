"""The plan: which recipes are trained for how long beside the baseline, and how their samples are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from examples.recipes.plain import Plain
from examples.studies.budget import Trial

__all__ = ["BASELINE", "FLOOR", "LATENT", "RECIPES", "Plan"]

BASELINE = "diffusers"
FLOOR = "training pictures"
"""What stands in the place of samples to show which figures can be hoped for."""
LATENT = "latent-"
"""The names of recipes in latents begin with it."""
RECIPES = ("unet", "dit", "edm2-unet", "latent-unet", "latent-dit", "latent-edm2-unet")
"""Each is a spec beside this file."""


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        seconds: CPU time of a run's training.
        reserve: The part of it that is left in latents for what is no step: measuring their scale.
        seeds: Number of runs a system.
        num: Number of samples, and of held-out pictures that they are compared with.
        evaluations: How often the network is evaluated for a sample.
        averages: By recipe, the length of the average of the weights that is made after training, as a share of it.
        plain: The baseline.
        trial: How the cost of a step is measured.
        overrides: Of all specs.

    Raises:
        ValueError: If a number is out of range.
    """

    seconds: float = 900.0
    reserve: float = 40.0
    seeds: int = 3
    num: int = 2000
    evaluations: int = 32
    averages: Mapping[str, float] = field(default_factory=lambda: {"edm2-unet": 0.1, "latent-edm2-unet": 0.1})
    plain: Plain = field(default_factory=Plain)
    trial: Trial = field(default_factory=Trial)
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.reserve < self.seconds or min(self.seeds, self.evaluations) < 1 or self.num < 2:
            raise ValueError(
                "Plan expects seconds above the reserve, a seed and an evaluation or more and num of at least 2, got "
                f"{self.seconds}, {self.reserve}, {self.seeds}, {self.evaluations} and {self.num}"
            )
