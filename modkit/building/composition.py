"""What a model was built from: its plan, the types that it was given, and the places of its modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from modkit.building.plan import Plan
from modkit.errors import join, split
from modkit.types import CondType, Event, TensorType

__all__ = ["Composition", "Origin", "locate"]


@dataclass(frozen=True)
class Origin:
    """The place in a spec that a module was built at. The module keeps it as `.origin`, the last one if it has several.

    Args:
        path: The path in the spec.
        kind: The kind of the part.
        name: The name of the part.
        owner: The path of the part whose slot the module fills; empty for the model itself.
    """

    path: str
    kind: str
    name: str
    owner: str


def locate(planned: Plan, path: str) -> Origin:
    """Locates the part that is built at a path of a plan."""
    part, place = planned.parts[planned.find(path)], split(path)
    while isinstance(place[-1], int):  # an item of a slot, or one of those that a slot repeats
        place = place[:-1]
    owners = (join(place[:stop]) for stop in range(len(place) - 1, 0, -1))
    owner = next((one for one in owners if planned.find(one) in planned.parts), "")
    return Origin(path, part.kind, part.name, owner)


class Composition(NamedTuple):
    """What a model was built from. The model keeps it as `.composition`.

    Args:
        plan: The plan.
        x: The type of one sample.
        cond: The conditions from an enclosing Model.
        fields: The types of the data's fields.
        origins: Where its modules were built, by their names: another model may have them too, at other places.
    """

    plan: Plan
    x: Event
    cond: CondType
    fields: Mapping[str, TensorType]
    origins: Mapping[str, Origin]

    def find_names(self, path: str) -> list[str]:
        """Finds the names of the modules that were built at a path of the spec, or of those of its repetitions."""
        return [name for name, origin in self.origins.items() if self.plan.find(origin.path) == path]

    def list_renamed(self) -> dict[str, list[str]]:
        """Lists the names of the parts' modules by their paths, where these are not the names."""
        found: dict[str, list[str]] = {}
        for name, origin in self.origins.items():
            found.setdefault(origin.path, []).append(name)
        return {path: names for path, names in found.items() if names != [path.partition(".")[2]]}
