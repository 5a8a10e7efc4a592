"""The report of a check: the parts, players and stages of a model, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modkit.building.plan import Plan
from modkit.building.review import make_problems
from modkit.errors import SpecError
from modkit.kinds import Data, Fact, Finding
from modkit.models.player import Player
from modkit.training.players import StageSchedule
from modkit.types import TensorType

__all__ = ["Port", "Report"]


@dataclass(frozen=True)
class Port:
    """A part of the resolved graph: its path, the types it was built from, its output, its number of parameters."""

    path: str
    kind: str
    name: str
    types: dict[str, str]
    emits: str
    parameters: int


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Args:
        plan: The checked plan.
        data: The data set, or None if the spec has none.
        x: The type of one sample.
        fields: The types of the data's fields.
        ports: The parts of the model.
        players: The players.
        stages: The stages of training.
        terms: Names of each player's losses.
        parameters: Number of parameters of the model.
        state: Shapes of the model's state dict, by key.
        unchecked: Paths of parts whose output could not be checked, with the reason.
        sources: Descriptions of where the types of a part come from, by the path of the part.
        facts: What the models and the game say of themselves, a line each.
        findings: Parts that do not suit each other, with the overrides that mend it.
    """

    plan: Plan
    data: Data | None
    x: TensorType
    fields: Mapping[str, TensorType]
    ports: tuple[Port, ...]
    players: tuple[Player, ...]
    stages: tuple[StageSchedule, ...]
    terms: Mapping[str, tuple[str, ...]]
    parameters: int
    state: Mapping[str, tuple[int, ...]]
    unchecked: Mapping[str, str]
    sources: Mapping[str, str]
    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]

    def lock(self) -> dict[str, Any]:
        """Makes the lock of a run of this plan, with the findings as `findings` if there are any."""
        made = self.plan.lock(self.state, self.x, self.fields)
        return made | ({"findings": list(map(str, self.findings))} if self.findings else {})

    def raise_refusals(self) -> None:
        """Raises the findings that are refused.

        Raises:
            SpecError: If there are any.
        """
        if problems := make_problems(self.findings, self.plan.spec):
            raise SpecError(problems)
