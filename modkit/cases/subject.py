"""A part under test: its declaration and keywords, built by the library's own builder from types that it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modkit.building.builder import Site
from modkit.building.plan import plan_part
from modkit.errors import SpecError
from modkit.part import Part
from modkit.specs.node import Node

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """A part under test.

    Args:
        part: Its declaration.
        params: Keywords that it is built with.
        declared: The module that declares it, where one does.
    """

    part: Part
    params: Mapping[str, Any] = field(default_factory=dict)
    declared: str | None = None

    def __str__(self) -> str:
        return f"{self.part.kind} {self.part.name}"

    @property
    def node(self) -> Node:
        """What a spec would say."""
        return Node({"use": self.part.load(), **self.params})

    def build(self, types: Mapping[str, Any], *, meta: bool = False, seed: int = 0) -> Any:
        """The part, told these types.

        Args:
            types: By name.
            meta: Whether a module is built on the meta device.
            seed: Of its initialisation.

        Raises:
            SpecError: If it cannot be built from them, or its keywords are wrong.
        """
        planned = plan_part(self.part.kind, self.node, seed=seed)
        site = Site(planned, meta=meta)
        value = site.build(planned.model, types, planned.model.path)
        site.check()
        return value

    def refusal(self, types: Mapping[str, Any]) -> str | None:
        """Why it cannot be built from these types, or None."""
        try:
            self.build(types, meta=True)
        except SpecError as error:
            return "; ".join(problem.message for problem in error.problems)
        return None
