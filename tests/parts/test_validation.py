# ruff: noqa: UP045 -- the older spellings of unions are what is tested

from __future__ import annotations

import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modkit.kinds import Encoder, Slot
from modkit.parts.validation import validate


@dataclass
class Inner:
    lr: float
    betas: list[float] = field(default_factory=list)


@dataclass
class Settings:
    steps: int = 1
    mode: Literal["a", "b"] = "a"
    inner: Inner | None = None
    stages: list[Inner] = field(default_factory=list)
    state: int = field(default=0, init=False)


KEYS = "Settings has: steps, mode, inner, stages"
FITS = [
    (True, bool), (3, int), (-(2**31) + 1, int), (3, float), (0.5, float), ("a", str), (None, None),
    (None, int | None), (3, typing.Optional[int]), ("a", Literal["a", 1]), (1, Literal["a", 1]), ([], list[int]),
    ([1, 2], list[int]), ((1, 2), list[int]), ([1, 2.5], tuple[float, float]), ([1, 2, 3], tuple[int, ...]),
    ([], tuple[()]), ({"a": 1}, dict[str, float]), ({"a": [1]}, Mapping[str, Sequence[int]]),
    ([[1], []], list[list[int]]),
    ({"x": [1, "a", None]}, Any), ([1, "a"], list), ({"a": 1}, dict), ("auto", float | Literal["auto"]),
    (3, Annotated[int, "positive"]), ({}, Settings), ({"steps": 2, "mode": "b", "inner": {"lr": 1}}, Settings),
    ({"stages": [{"lr": 0.5, "betas": [1, 2]}]}, Settings), ({1: "a"}, dict[int, str]), (True, bool | int),
]  # fmt: skip


@pytest.mark.parametrize(("value", "annotation"), FITS)
def test_plain_data_that_fits(value, annotation):
    assert validate(value, annotation) is None


@pytest.mark.parametrize(
    ("value", "annotation", "reason"),
    [
        (True, int, "expected int, got True"),
        (True, float, "expected float, got True"),
        (1, bool, "expected bool, got 1"),
        (1.0, int, "expected int, got 1.0"),
        ("1", int, "expected int, got '1'"),
        (1, str, "expected str, got 1"),
        (None, int, "expected int, got None"),
        (1, None, "expected None, got 1"),
        (math.nan, float, "expected a finite number, got nan"),
        (-math.inf, float | None, "expected a finite number, got -inf"),
        (math.nan, Any, "expected a finite number, got nan"),
        (2**31, int, "expected a number below 2^31 in size, got 2147483648"),
        (-(2**31), int | None, "expected a number below 2^31 in size, got -2147483648"),
        (2**31, float, "expected a number below 2^31 in size, got 2147483648"),
        ("c", Literal["a", "b"], "expected 'a' | 'b', got 'c'"),
        (True, Literal[1], "expected 1, got True"),
        ("x", int | None, "expected int | None, got 'x'"),
        (3, list[int], "expected list[int], got 3"),
        ("ab", list[str], "expected list[str], got 'ab'"),
        ([1, "a"], list[int], "[1]: expected int, got 'a'"),
        ([[1], [2, True]], list[list[int]], "[1][1]: expected int, got True"),
        ([1, "a"], list[int] | None, "[1]: expected int, got 'a'"),
        ([1], tuple[float, float], "expected 2 values, tuple[float, float], got 1: [1]"),
        ([1], tuple[()], "expected 0 values, tuple, got 1: [1]"),
        ([1, "a"], tuple[int, ...], "[1]: expected int, got 'a'"),
        ([1, "a"], tuple[int, int], "[1]: expected int, got 'a'"),
        ({"a": "b"}, dict[str, float], "a: expected float, got 'b'"),
        ({"a": {"b": [0, math.nan]}}, Any, "a.b[1]: expected a finite number, got nan"),
        ({1: 1}, dict[str, int], "expected keys of type str, expected str, got 1"),
        ([1], dict[str, int], "expected dict[str, int], got [1]"),
        (object, Any, "expected plain data, got <class 'object'>"),
        (1, Settings, "expected the keys of Settings, got 1"),
        ({"step": 1}, Settings, f"unknown key 'step'; did you mean 'steps'?; {KEYS}"),
        ({"state": 1}, Settings, f"unknown key 'state'; did you mean 'stages'?; {KEYS}"),
        ({"inner": {}}, Settings, "inner: expected a value for 'lr' of Inner, got none"),
        ({"stages": [{"lr": 1}, {"lr": "a"}]}, Settings, "stages[1].lr: expected float, got 'a'"),
        ({"use": "conv"}, Slot[Encoder], "expected slot of encoder, got {'use': 'conv'}"),
    ],
)
def test_plain_data_that_does_not_fit_says_why_and_where(value, annotation, reason):
    assert validate(value, annotation) == reason


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.wide
@given(PLAIN)
def test_a_union_fits_exactly_where_a_member_does(value):
    members = [int, str, list[int], dict[str, float], None]
    assert (validate(value, int | str | list[int] | dict[str, float] | None) is None) == any(
        validate(value, member) is None for member in members
    )
    assert validate(value, Any) is None
    assert (validate([0, value], list[int]) is None) == (validate(value, int) is None)
