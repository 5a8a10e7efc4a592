"""The plans of the study's parts: what is trained beside which baseline, and what samples are compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from examples.studies.budget import Trial

__all__ = ["FIGURES", "PLANS", "Plan"]

FIGURES: Mapping[str, bool] = {
    "FD": False,
    "precision": True,
    "coverage": True,
    "FD (random-conv)": False,
    "precision (random-conv)": True,
    "coverage (random-conv)": True,
}
"""By the name of a figure, whether more of it is better. Those without a name of features are by the data's own."""


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        part: The study's part.
        systems: By system, its spec in `examples` and overrides of it; the first is the baseline.
        seconds: CPU time of a run's training.
        seeds: Number of runs a system.
        num: Number of samples, and of real ones that they are compared with.
        split: The split that these are read from.
        draws: Number of sets of samples, whose scores are averaged: those of a few hundred samples vary by a fifth.
        trial: How the cost of a step is measured.
        overrides: Of all specs.

    Raises:
        ValueError: If there is no rival, or a number is out of range.
    """

    part: str
    systems: Mapping[str, tuple[str, ...]]
    seconds: float = 300.0
    seeds: int = 3
    num: int = 1437
    split: Literal["train", "test"] = "train"
    draws: int = 1
    trial: Trial = field(default_factory=Trial)
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.seconds <= 0 or min(self.seeds, self.draws) < 1 or self.num < 2 or len(self.systems) < 2:
            raise ValueError(
                "Plan expects seconds above 0, a seed, a draw, num of at least 2 and a baseline with rivals, got "
                f"{self.seconds}, {self.seeds}, {self.draws}, {self.num} and {list(self.systems)}"
            )


_FASHION = "data={use: fashion-mnist, size: 32}"
_BRIEF = (  # steps take five times as long, so there are few of them: smaller ones are made, and classes pull less
    "train.batch_size=32",
    "train.terms.r1.every=8",
    "model.weights={class: 0.2}",
    "model.z_dim=16",
)
_FEW = ("dcgan.yaml", "data={use: subset, data: {use: digits, size: 8}, num: 300}")
_ADA = (*_FEW, "model.augment={use: ada, groups: [geometry]}")


def _size(generator: int, discriminator: int) -> tuple[str, str]:
    """Overrides that give a GAN as many weights as DCGAN has, within a tenth."""
    return f"model.generator.channels={generator}", f"model.discriminator.channels={discriminator}"


PLANS = {
    plan.part: plan
    for plan in (
        Plan("gans-digits", {"DCGAN": ("dcgan.yaml",), "AC-GAN": ("ac-gan.yaml", *_size(28, 28))}),
        Plan(
            "gans-fashion",
            {"DCGAN": ("dcgan.yaml", _FASHION), "AC-GAN": ("ac-gan.yaml", _FASHION, *_size(28, 30), *_BRIEF)},
            num=5000,
        ),
        Plan("gans-few", {"DCGAN": _FEW, "ADA": _ADA}, num=360, split="test", draws=10),
    )
}
