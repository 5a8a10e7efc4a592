"""The plans of the study's parts: what is trained, how long, and what is measured.

References:
    Dual Discriminator Generative Adversarial Nets (Nguyen et al., 2017), section 5.1, https://arxiv.org/abs/1709.03831
    PacGAN (Lin et al., 2018), sections 4.1 and 4.2, and the authors' code, https://arxiv.org/abs/1712.04086
    The GAN is dead; long live the GAN! (Huang et al., 2024), section 2.3, https://arxiv.org/abs/2501.05441
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

__all__ = ["PACGAN", "PLANS", "RING", "STACKED", "Plan", "make_quick"]


@dataclass(frozen=True)
class Plan:
    """What is trained and measured.

    Args:
        part: The study's part, by which it is judged.
        systems: By system, its spec in `examples` and overrides of it.
        metric: What is measured at the end.
        num: Number of samples that it is measured on.
        steps: Number of steps of each run.
        more: The same with `--full`.
        seeds: Number of runs a system.
        every: Number of steps from one count of modes during training to the next; none by default.
        overrides: Of all specs.

    Raises:
        ValueError: If there are no systems, or a number is below 1.
    """

    part: str
    systems: Mapping[str, tuple[str, ...]]
    metric: Literal["modes", "class-modes"]
    num: int
    steps: int
    more: int
    seeds: int
    every: int | None = None
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.num, self.steps, self.seeds) < 1 or not self.systems:
            received = f"{list(self.systems)}, {self.num}, {self.steps} and {self.seeds}"
            raise ValueError(f"Plan expects systems, and num, steps and seeds of at least 1, got {received}")


def make_quick(plan: Plan) -> Plan:
    """One seed and a fiftieth of the steps."""
    return replace(plan, steps=plan.steps // 50, seeds=1, every=plan.every and plan.every // 5)


def _pack(file: str, num: int, batch_size: int) -> tuple[str, ...]:
    """Packs of so many samples; a step takes so many packs, as the authors' does."""
    return file, f"model.discriminator.num={num}", f"train.batch_size={num * batch_size}"


def _list_pacgan() -> Iterator[tuple[str, tuple[str, ...]]]:
    systems = {
        "GAN": _pack("pacgan-grid.yaml", 1, 100),
        "ALI": ("modes/ali.yaml",),
        "PacGAN2": _pack("pacgan-grid.yaml", 2, 100),
        "PacGAN4": _pack("pacgan-grid.yaml", 4, 100),
    }
    for data, override in {
        "grid": "data={use: grid, std: .05}",
        "ring": "data={use: ring, radius: 1, std: .01}",
    }.items():
        for name, words in systems.items():
            yield f"{data}, {name}", (*words, override)


RING = Plan(
    "ring",
    {
        "GAN": ("minibatch-gan.yaml", "model.discriminator.minibatch=0", "train.batch_size=512"),
        "D2GAN": ("d2gan-ring.yaml",),
        "GAN, small batches": ("minibatch-gan.yaml", "model.discriminator.minibatch=0"),
        "minibatch discrimination": ("minibatch-gan.yaml",),
    },
    "modes",
    num=10_000,
    steps=25_000,
    more=25_000,
    seeds=10,
    every=250,
)
PACGAN = Plan("pacgan", dict(_list_pacgan()), "modes", num=2500, steps=100_000, more=400_000, seeds=3)
STACKED = Plan(
    "stacked",
    {
        "DCGAN": _pack("modes/dcgan.yaml", 1, 128),
        "PacDCGAN2": _pack("modes/dcgan.yaml", 2, 128),
        "relativistic, R1 and R2": ("modes/r3gan.yaml",),
        "relativistic, R1": ("modes/r3gan.yaml", "model.regularizers={r1: r1}"),
        "plain, R1 and R2": ("modes/r3gan.yaml", "model.adversarial=non-saturating"),
        "plain, R1": ("modes/r3gan.yaml", "model.adversarial=non-saturating", "model.regularizers={r1: r1}"),
    },
    "class-modes",
    num=26_000,
    steps=10_000,
    more=50_000,
    seeds=3,
)
PLANS = {plan.part: plan for plan in (RING, PACGAN, STACKED)}
