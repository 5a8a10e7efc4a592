"""The table of cases, from which the battery tests the parts of each kind."""

from __future__ import annotations

from modkit.cases import (
    adversaries,
    autoencoders,
    bijections,
    codes,
    data,
    denoisers,
    judges,
    measuring,
    models,
    training,
)
from modkit.cases.case import Case
from modkit.part import import_object
from modkit.parts.registry import find_kind

__all__ = ["CASES", "find_case"]

CASES: dict[str, Case] = {
    case.kind: case
    for family in (models, autoencoders, adversaries, judges, bijections, denoisers, codes, data, measuring, training)
    for case in family.CASES
}
"""The case of each of modkit's kinds."""


def find_case(kind: str) -> Case:
    """Finds the case of a kind, which is modkit's or a plug-in's.

    Raises:
        ValueError: If there is no such kind, or its row names no case.
        ImportError: If the module of the case cannot be imported.
    """
    if kind in CASES:
        return CASES[kind]
    row = find_kind(kind)
    found = None if row.case is None else import_object(row.case, f"kind {kind}")
    if not isinstance(found, Case):
        raise ValueError(f"the battery expects kind {kind} to name its Case in `case`, got {row.case!r}: {found!r}")
    return found
