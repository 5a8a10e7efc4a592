"""Ranges are declared: calls are refused by one decorator, and constructors check no plain number by hand."""

from __future__ import annotations

import ast
import copy
import inspect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from modkit.types import PositiveInt, Range, Share, checked

_ROOT = Path(__file__).parents[2]
_MOST = 1  # a ceiling that falls only: ADA's `held`, which may be a part


@checked
@dataclass(frozen=True)
class Blur:
    width: PositiveInt = 8
    sizes: Annotated[list[int] | None, Range(1)] = None
    p: Share = 0.5
    rise: Annotated[float, Range(above=0, below=1)] = 0.5
    edge: Literal["zero", "copy"] | PositiveInt = "zero"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0}, "Blur expects width of at least 1, got 0"),
        ({"sizes": [4, 0]}, r"Blur expects sizes\[1\] of at least 1, got 0"),
        ({"p": 1.5}, r"Blur expects p in \[0, 1\], got 1.5"),
        ({"p": math.nan}, r"Blur expects p in \[0, 1\], got nan"),
        ({"rise": 0.0}, r"Blur expects rise in \(0, 1\), got 0.0"),
        ({"edge": "wrap"}, "Blur expects edge 'zero' or 'copy', got 'wrap'"),
        ({"edge": 0}, "Blur expects edge of at least 1 or 'zero' or 'copy', got 0"),
    ],
)
def test_a_value_outside_of_its_range_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Blur(**given)  # type: ignore[arg-type]


def test_values_by_position_are_checked() -> None:
    with pytest.raises(ValueError, match="width of at least 1, got -1"):
        Blur(-1)


def test_ends_of_ranges_are_valid() -> None:
    assert Blur(1, [1], 0.0, 0.5, "copy").edge == "copy"
    assert Blur(p=1.0, edge=3, sizes=None).edge == 3


def test_a_checked_class_keeps_its_signature_and_copies() -> None:
    assert list(inspect.signature(Blur).parameters) == ["width", "sizes", "p", "rise", "edge"]
    assert copy.deepcopy(Blur(2)) == Blur(2)


def test_constructors_check_no_more_plain_numbers_by_hand() -> None:
    found = [place for room in ("modkit", "plugins") for place in _list_checks(_ROOT / room)]
    assert len(found) <= _MOST, found


def _list_checks(folder: Path) -> Iterator[str]:
    """Lists constructors' refusals whose conditions compare a parameter with a constant and read nothing else."""
    for path in sorted(folder.rglob("*.py")):
        if "tests" in path.parts:
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name == "__init__":
                names = {one.arg for one in (*function.args.args, *function.args.kwonlyargs)}
                for node in ast.walk(function):
                    if (
                        isinstance(node, ast.If)
                        and isinstance(node.body[-1], ast.Raise)
                        and _is_plain(node.test, names)
                    ):
                        yield f"{path.name}:{node.lineno}"


def _is_plain(test: ast.expr, names: set[str]) -> bool:
    if not isinstance(test, ast.UnaryOp | ast.Compare):
        return False
    read = {one.id for one in ast.walk(test) if isinstance(one, ast.Name)}
    numbers = [one for one in ast.walk(test) if isinstance(one, ast.Constant) and isinstance(one.value, int | float)]
    calls = [one for one in ast.walk(test) if isinstance(one, ast.Attribute | ast.Call)]
    return len(read) == 1 and read <= names and bool(numbers) and not calls
