"""The report of a check: the parts, players and stages of a model, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modkit.blocks import Block, format_html, format_text
from modkit.building.builder import Site
from modkit.building.plan import Plan
from modkit.building.review import make_problems
from modkit.data.review import list_class_names
from modkit.errors import SpecError
from modkit.kinds import Data, Fact, Finding
from modkit.models.player import Player
from modkit.training.schedule import StageSchedule
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
        site: Where the checked plan was built on the meta device, with its data and settings; after `Site.renew` it
            builds with values.
        x: The type of one sample.
        fields: The types of the data's fields.
        ports: The parts of the model.
        players: The players.
        stages: The stages of training.
        terms: Names of each player's losses.
        flops: FLOPs of a row of each player's losses, without the backward pass; of products and convolutions only.
        parameters: Number of parameters of the model.
        state: Shapes of the model's state dict, by key.
        modules: Names of the parts' modules by their paths, where these are not the names.
        unchecked: Paths of parts whose output could not be checked, with the reason.
        sources: Descriptions of where the types of a part come from, by the path of the part.
        facts: What the models and the game say of themselves, a line each.
        findings: Parts that do not suit each other, with the overrides that mend it.
        idle: Where nothing is trained, which only training refuses: such a model can be built and sampled.
    """

    site: Site
    x: TensorType
    fields: Mapping[str, TensorType]
    ports: tuple[Port, ...]
    players: tuple[Player, ...]
    stages: tuple[StageSchedule, ...]
    terms: Mapping[str, tuple[str, ...]]
    flops: Mapping[str, float]
    parameters: int
    state: Mapping[str, tuple[int, ...]]
    modules: Mapping[str, Sequence[str]]
    unchecked: Mapping[str, str]
    sources: Mapping[str, str]
    facts: tuple[Fact, ...]
    findings: tuple[Finding, ...]
    idle: tuple[Finding, ...]

    @property
    def plan(self) -> Plan:
        """The checked plan."""
        return self.site.plan

    @property
    def data(self) -> Data | None:
        """The data set, or None if the spec has none."""
        return self.site.data

    def count_flops(self, rows: int) -> list[float]:
        """Counts the FLOPs of a step of each stage: a backward pass takes twice those of the forward pass."""
        return [3 * rows * sum(self.flops.get(player.name, 0) for player in stage.players) for stage in self.stages]

    def describe(self) -> Iterator[Block]:
        """Describes the report: a table of the parts, the stages, facts and warnings, and a summary."""
        rows = [
            [
                port.path,
                port.name,
                ", ".join(f"{name} {type}" for name, type in port.types.items()),
                port.emits + (" (unchecked)" if port.path in self.unchecked else ""),
                f"{port.parameters:,}" if port.parameters else "",
            ]
            for port in sorted(self.ports, key=lambda port: port.path)
        ]
        yield ("path", "part", "receives", "emits", "parameters"), rows
        for number, stage in enumerate(self.stages):
            names = ", ".join(player.name for player in stage.players)
            yield f"stage {number}: {names}, {stage.steps} steps"
        yield from map(str, self.facts)
        warnings = [*(finding for finding in self.findings if not finding.refused), *self.idle]
        yield from (f"warning: {finding}" for finding in warnings)
        count = len(self.findings) + len(self.idle)
        found = f"{count} problem{'s' if count > 1 else ''} found" if count else "no problems found"
        yield f"x: {self.x}; {self.parameters:,} parameters; {found}"

    def list_data_facts(self) -> list[Fact]:
        """Lists the facts of the data: splits, classes, what is left out."""
        return [fact for fact in self.facts if fact.path.partition(".")[0] == "data"]

    def __str__(self) -> str:
        return format_text(self.describe())

    def _repr_html_(self) -> str:
        """In a notebook: the same as a table."""
        return format_html(self.describe())

    def lock(self) -> dict[str, Any]:
        """Makes the lock of a run of this plan, with the data's `splits` and `classes`, and the `findings`, if any."""
        made = self.plan.lock(self.state, self.modules, self.x, self.fields)
        splits: dict[str, Any] = {"splits": dict(self.data.splits)} if self.data else {}
        if names := list_class_names(self.data):
            splits["classes"] = names
        return made | splits | ({"findings": list(map(str, self.findings))} if self.findings else {})

    def raise_refusals(self) -> None:
        """Raises the findings that are refused.

        Raises:
            SpecError: If there are any.
        """
        if problems := make_problems(self.findings, self.plan.spec):
            raise SpecError(problems)

    def raise_idle(self) -> None:
        """Raises what only training refuses.

        Raises:
            SpecError: If there is any.
        """
        if problems := make_problems(self.idle, self.plan.spec):
            raise SpecError(problems)
