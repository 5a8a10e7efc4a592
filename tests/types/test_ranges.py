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
_LEFT = {
    "ADA.held": "it may be a part",
    "Player.every": "the message names the player",
    "Player.start": "the message names the player",
    "Stream.num_held_out": "it is related to held_out",
    "Table.betas": "it is a tensor",
    "TensorType.classes": "it is related to range",
    "TensorType.levels": "types are made wherever tensors go, compiled code included",
}
"""Checks of plain numbers that stay by hand, each with its reason; the list may only become shorter."""


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
        ({"width": 0}, "Blur expects width to be at least 1, got 0"),
        ({"sizes": [4, 0]}, r"Blur expects sizes\[1\] to be at least 1, got 0"),
        ({"p": 1.5}, r"Blur expects p to be in \[0, 1\], got 1.5"),
        ({"p": math.nan}, r"Blur expects p to be finite and in \[0, 1\], got nan"),
        ({"rise": 0.0}, r"Blur expects rise to be in \(0, 1\), got 0.0"),
        ({"edge": "wrap"}, "Blur expects edge to be 'zero' or 'copy', got 'wrap'"),
        ({"edge": 0}, "Blur expects edge to be at least 1, 'zero' or 'copy', got 0"),
    ],
)
def test_a_value_outside_of_its_range_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Blur(**given)  # type: ignore[arg-type]


def test_values_by_position_are_checked() -> None:
    with pytest.raises(ValueError, match="width to be at least 1, got -1"):
        Blur(-1)


def test_ends_of_ranges_are_valid() -> None:
    assert Blur(1, [1], 0.0, 0.5, "copy").edge == "copy"
    assert Blur(p=1.0, edge=3, sizes=None).edge == 3


def test_a_checked_class_keeps_its_signature_and_copies() -> None:
    assert list(inspect.signature(Blur).parameters) == ["width", "sizes", "p", "rise", "edge"]
    assert copy.deepcopy(Blur(2)) == Blur(2)


def test_constructors_check_no_more_plain_numbers_by_hand() -> None:
    found = {place for room in ("modkit", "plugins") for place in _list_checks(_ROOT / room)}
    assert found == set(_LEFT)


def _list_checks(folder: Path) -> Iterator[str]:
    """Lists constructors' refusals that compare one parameter with a number."""
    for path in sorted(folder.rglob("*.py")):
        if "tests" in path.parts:
            continue
        for owner in ast.walk(ast.parse(path.read_text())):
            for function in owner.body if isinstance(owner, ast.ClassDef) else ():
                if isinstance(function, ast.FunctionDef) and function.name in ("__init__", "__post_init__"):
                    yield from (f"{owner.name}.{name}" for name in _list_compared(function))


def _list_compared(function: ast.FunctionDef) -> Iterator[str]:
    """Lists the parameters, or attributes of self, that a refusal compares with a number."""
    given = {one.arg for one in (*function.args.args, *function.args.kwonlyargs)} - {"self"}
    for node in ast.walk(function):
        if isinstance(node, ast.If) and isinstance(node.body[-1], ast.Raise):
            for compared in (one for one in ast.walk(node.test) if isinstance(one, ast.Compare)):
                sides = [compared.left, *compared.comparators]
                names = [ast.unparse(side) for side in sides if _is_given(side, given)]
                numbers = [one for one in sides if isinstance(one, ast.Constant) and isinstance(one.value, int | float)]
                if len(names) == 1 and numbers and len(numbers) == len(sides) - 1:
                    yield names[0].removeprefix("self.")


def _is_given(side: ast.expr, given: set[str]) -> bool:
    if isinstance(side, ast.Call):  # of several: min(width, depth) < 1
        return ast.unparse(side.func) in ("min", "max") and any(_is_given(one, given) for one in side.args)
    if isinstance(side, ast.Attribute):
        return isinstance(side.value, ast.Name) and side.value.id == "self"
    return isinstance(side, ast.Name) and side.id in given
