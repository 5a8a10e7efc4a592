"""The report: a table with a row for each figure, before and after."""

from __future__ import annotations

import re
from collections.abc import Mapping

from examples.mended.figure import Figure, Single, Value
from examples.studies.mean import table

__all__ = ["format_value", "make_report"]

_HEAD = ["defect", "figure", "expected", "before", "after"]


def make_report(figures: Mapping[str, Figure], found: Mapping[str, tuple[Value, Value]]) -> str:
    """Writes the table, Markdown.

    Args:
        figures: The figures, by name.
        found: What each measured one was before and is after.
    """
    rows = []
    for name, values in found.items():
        one = figures[name]
        rows.append([one.defect, one.text, one.expected, *map(format_value, values)])
    return table(_HEAD, [[cell.replace("|", "\\|") for cell in row] for row in rows], words=len(_HEAD))


def format_value(value: Value) -> str:
    """A figure as its cell shows it.

    Examples:
        >>> format_value([0.16787, 40.436, 3175.1]), format_value(["Heun", 35])
        ('.168; 40.4; 3,180', 'Heun; 35')
    """
    values = value if isinstance(value, list) else [value]
    return "; ".join(map(_format, values))


def _format(value: Single) -> str:
    if isinstance(value, str):
        return value
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 1000 else re.sub(r"^(-?)0\.", r"\1.", f"{rounded:g}")
