"""The table of cases, from which the battery tests the parts of each kind."""

from __future__ import annotations

from modkit.cases import adversaries, autoencoders, bijections, codes, data, denoisers, measuring, models, training
from modkit.cases.case import Case

__all__ = ["CASES"]

CASES: dict[str, Case] = {
    case.kind: case
    for family in (models, autoencoders, adversaries, bijections, denoisers, codes, data, measuring, training)
    for case in family.CASES
}
"""The case of each kind."""
