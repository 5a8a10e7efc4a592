"""What a model was built from: its plan and the types that it was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from modkit.building.plan import Plan
from modkit.types import CondType, Event, TensorType

__all__ = ["Composition"]


class Composition(NamedTuple):
    """What a model was built from. The model keeps it as `.composition`.

    Args:
        plan: The plan.
        x: The type of one sample.
        cond: The conditions from an enclosing Model.
        fields: The types of the data's fields.
    """

    plan: Plan
    x: Event
    cond: CondType
    fields: Mapping[str, TensorType]

    def __deepcopy__(self, memo: dict[int, Any]) -> Composition:
        return self
