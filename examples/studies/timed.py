"""Systems trained for the same CPU time, each with as many steps as fit: their plan, and how it is carried out.

    OUT/budget.json   cost of a step, which gives the steps that fit

`examples.studies.comparison` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from examples.studies.budget import Trial, fit_budget
from examples.studies.comparison import compare
from examples.studies.mean import Claim, Rows
from modkit import Spec

__all__ = ["Timed", "TimedPlan", "compare_timed"]


class Timed(Protocol):
    """A plan, a dataclass, with the CPU time of a run, its number of seeds, and how the cost of a step is measured."""

    @property
    def seconds(self) -> float:
        """CPU time of a run's training."""
        ...

    @property
    def seeds(self) -> int:
        """Number of runs a system."""
        ...

    @property
    def trial(self) -> Trial:
        """How the cost of a step is measured."""
        ...


@dataclass(frozen=True)
class TimedPlan:
    """What is trained and measured.

    Args:
        seconds: CPU time of a run's training.
        seeds: Number of runs a system.
        draws: Number of draws of what is measured.
        num: Number of held-out pictures that it is measured on.
        trial: How the cost of a step is measured.
        overrides: Of all specs.

    Raises:
        ValueError: If a number is out of range.
    """

    seconds: float
    seeds: int
    draws: int
    num: int = 1000
    trial: Trial = field(default_factory=Trial)
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.seconds <= 0 or min(self.seeds, self.draws) < 1 or self.num < 2:
            raise ValueError(
                f"Plan expects seconds above 0, a seed and a draw or more and num of at least 2, got {self.seconds}, "
                f"{self.seeds}, {self.draws} and {self.num}"
            )


def compare_timed(
    plan: Timed,
    out: Path,
    systems: Iterable[str],
    read_spec: Callable[[str], Spec],
    measure: Callable[[Path], dict[str, float]],
    claims: Callable[[Rows], Iterable[Claim]],
    report: Callable[[Rows], str],
    say: Callable[[str], None] = print,
) -> str:
    """Does what is not done yet, and writes `study.json` and `report.md`; see `compare`.

    Args:
        plan: What is to be done.
        out: Where everything is kept.
        systems: Names of the systems.
        read_spec: Reads the spec of a system, whose steps are set.
        measure: Measures a run.
        claims: Judges the figures.
        report: Makes the report of the figures, Markdown.
        say: Prints a line of progress.

    Returns:
        The report.

    Raises:
        ValueError: If `out` holds a study of another plan.
    """

    def make_spec(system: str) -> Spec:
        return fit_budget(read_spec(system), plan.seconds, out / "budget.json", trial=plan.trial)

    seeds: Mapping[str, int] = dict.fromkeys(systems, plan.seeds)
    return compare(plan, out, seeds, make_spec, measure, claims, report, say)
