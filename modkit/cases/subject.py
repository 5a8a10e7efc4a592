"""A part under test: its declaration and parameters, built from given types by the library's builder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modkit.building.builder import Site
from modkit.building.plan import Plan, plan_part
from modkit.errors import SpecError
from modkit.part import Part
from modkit.specs.node import Node

if TYPE_CHECKING:
    from modkit.parts.plugin import Plugin

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """A part under test.

    Args:
        part: Its declaration.
        params: Parameters with which it is built.
        declared: The module that declares it, if known.
        plugin: The plug-in that has it, if it is one's.
        data: A data set on whose types and samples it is tested as well, as a part that reads fields of its own is.

    Examples:
        >>> from modkit import find
        >>> Subject(find("schedule", "cosine"), {"num": 10}).build({}).num
        10
    """

    part: Part
    params: Mapping[str, Any] = field(default_factory=dict)
    declared: str | None = None
    plugin: Plugin | None = None
    data: Subject | None = None
    _plans: dict[int, Plan] = field(default_factory=dict, init=False, repr=False, compare=False)  # by seed

    def __str__(self) -> str:
        return f"{self.part.kind} {self.part.name}"

    @property
    def node(self) -> Node:
        """The part's node in a spec."""
        return Node({"use": self.part.load(), **self.params})

    def build(self, types: Mapping[str, Any], *, meta: bool = False, seed: int = 0) -> Any:
        """Builds the part from types.

        Args:
            types: The types by name.
            meta: Whether a module is built on the meta device.
            seed: Seed of its initialization.

        Raises:
            SpecError: If the part cannot be built from these types, or its parameters are wrong.
        """
        if seed not in self._plans:
            self._plans[seed] = plan_part(self.part.kind, self.node, seed=seed)
        planned = self._plans[seed]
        site = Site(planned, meta=meta)
        value = site.build(planned.root, types)
        site.check()
        return value

    def find_refusal(self, types: Mapping[str, Any]) -> str | None:
        """Returns why the part cannot be built from these types, or None if it can."""
        try:
            self.build(types, meta=True)
        except SpecError as error:
            return "; ".join(problem.message for problem in error.problems)
        return None
