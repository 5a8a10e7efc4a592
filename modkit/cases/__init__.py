"""The table of cases: what the battery knows of each kind."""

from __future__ import annotations

from modkit.cases import adversaries, autoencoders, codes, data, denoisers, measuring, models, training
from modkit.cases.case import Case

__all__ = ["CASES"]

CASES: dict[str, Case] = {
    case.kind: case
    for family in (models, autoencoders, adversaries, denoisers, codes, data, measuring, training)
    for case in family.CASES
}
"""A case a kind."""
