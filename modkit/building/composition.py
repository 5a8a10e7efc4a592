"""What a model was built from: its plan, the types that it was given, and the places of its modules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from modkit.building.plan import Plan
from modkit.errors import join, split
from modkit.types import CondType, Event, TensorType, split_levels

__all__ = ["Composition", "Origin", "check_types", "format_type", "format_types", "locate"]

_SHOWN = 6  # entries of a mapping in a message, at most


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


def check_types(model: Any, composed: Composition, types: Mapping[str, Any]) -> None:
    """Checks that a composed model was composed for the types of the slot that it is put into.

    Raises:
        ValueError: If it was not.
    """
    fields, read = types.get("fields") or {}, (*model.reads, *model.inputs)
    pairs: dict[str, tuple[Any, Any]] = {"x": (composed.x, types["x"]), "cond": (composed.cond, types["cond"])}
    pairs |= {f"the field {name} as": (composed.fields.get(name), fields.get(name)) for name in read}
    for name, (before, now) in pairs.items():
        if before != now:
            raise ValueError(f"it was composed for {name} {format_type(before) or 'none'}")
    if any(part.kind == "schedule" for part in composed.plan.parts.values()):
        stds = [[level.std for level in split_levels(x)] for x in (composed.x, types["x"])]
        if stds[0] != stds[1]:
            raise ValueError(
                f"expected a model composed for x with std={stds[1][0]}, which scales its noise levels, got one with "
                f"std={stds[0][0]}: compose it for replace(x, std={stds[1][0]})"
            )


def format_types(types: Mapping[str, Any]) -> str:
    """The types that a part is given, in words."""
    shown = {name: text for name, value in types.items() if (text := format_type(value))}
    return ", ".join(f"{name} {text}" for name, text in shown.items()) or "nothing"


def format_type(value: Any) -> str:
    """A type, or the class of a part, in words; empty where there is nothing to say."""
    if isinstance(value, tuple):
        return f"({', '.join(map(str, value))})"
    if isinstance(value, CondType):
        return f"({value})" if value else ""
    if isinstance(value, Mapping):
        items = [f"{name} {format_type(item)}" for name, item in value.items()]
        shown = items if len(items) <= _SHOWN else [*items[: _SHOWN - 2], "…", items[-1]]
        return f"({', '.join(shown)})" if items else ""
    return str(value) if isinstance(value, TensorType | str | int | float) else type(value).__name__
