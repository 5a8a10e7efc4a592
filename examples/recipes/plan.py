"""The plan: which recipes are trained for how long beside the baseline, and how their samples are compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from examples.recipes.plain import Plain
from examples.studies.budget import Trial

__all__ = ["AVERAGED", "BASELINE", "FLOOR", "LATENT", "RECIPES", "Plan"]

BASELINE = "diffusers"
FLOOR = "training pictures"
"""What stands in the place of samples to show which figures can be hoped for."""
LATENT = "latent-"
"""The names of recipes in latents begin with it."""
RECIPES = ("unet", "dit", "edm2-unet", "latent-unet", "latent-dit", "latent-edm2-unet")
"""Each is a spec beside this file."""
AVERAGED = ("edm2-unet", "latent-edm2-unet")
"""Those with an average of the weights whose length is chosen after training."""


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        seconds: CPU time of a run's training.
        reserve: The part of it that is left in latents for what is no step: measuring their scale.
        seeds: Number of runs a system.
        num: Number of samples, and of held-out pictures that they are compared with; half as many choose an average.
        evaluations: How often the network is evaluated for a sample.
        lengths: Lengths of the average of the weights, as shares of training, among which one is chosen afterwards.
        chosen_on: Seed of the run on which it is, which is not one of those that are judged.
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
    lengths: tuple[float, ...] = (0.05, 0.08, 0.12, 0.16, 0.2)
    chosen_on: int = 10
    plain: Plain = field(default_factory=Plain)
    trial: Trial = field(default_factory=Trial)
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.reserve < self.seconds or min(self.seeds, self.evaluations) < 1 or self.num < 4:
            raise ValueError(
                "Plan expects seconds above the reserve, a seed and an evaluation or more and num of at least 4, got "
                f"{self.seconds}, {self.reserve}, {self.seeds}, {self.evaluations} and {self.num}"
            )
        if self.seeds > self.chosen_on:
            raise ValueError(
                f"Plan expects seeds below {self.chosen_on}, on which averages are chosen, got {self.seeds}"
            )
