# ruff: noqa: UP045 -- the older spellings of unions are what is tested

from __future__ import annotations

import typing
from collections.abc import Sequence
from fractions import Fraction
from typing import Annotated, Any, Literal

import pytest

from modkit.kinds import Encoder, Slot, Step, Weight
from modkit.models.model import Model
from modkit.parts.annotation import list_members, name_kind, render


def test_members_are_of_the_whole_union_however_it_is_nested_or_annotated():
    assert list_members(Annotated[typing.Optional[Annotated[int | str, "a"]], "b"]) == [int, str, type(None)]
    assert list_members(list[int | str]) == [list[int | str]]


def test_kinds_are_known_by_their_protocols_and_models_by_their_class():
    assert [name_kind(one) for one in (Encoder, Model, Step, int, None)] == ["encoder", "model", None, None, None]


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (None, "None"),
        (list[int], "list[int]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (dict[str, float] | None, "dict[str, float] | None"),
        (typing.Optional[int], "int | None"),
        (Literal["a", "b"] | None, "'a' | 'b' | None"),
        (Slot[Encoder], "slot of encoder"),
        (dict[str, Slot[Weight] | float], "dict[str, slot of weight | float]"),
        (Sequence[str], "Sequence[str]"),
        (Any, "Any"),
        (Fraction, "Fraction"),
        (Annotated[int, "x"], "int"),
    ],
)
def test_render(annotation, text):
    assert render(annotation) == text
