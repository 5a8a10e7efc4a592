# ruff: noqa: UP007, UP045 -- the older spellings of unions are what is tested

from __future__ import annotations

import collections.abc
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from torch import nn

from modkit.kinds import KINDS, Encoder, Network, Regularizer, Slot, Weight, default
from modkit.models.model import Model
from modkit.part import Part
from modkit.parts import docstrings
from modkit.parts.registry import get_registry
from modkit.parts.signature import (
    MISSING,
    RecordShape,
    SlotShape,
    list_given_types,
    parse_slot,
    read_parameters,
    read_signature,
)
from modkit.parts.validation import validate
from modkit.types import CondType, TensorType
from tests.refusals import refusals

if TYPE_CHECKING:
    from decimal import Decimal


@dataclass(frozen=True)
class Local(Part):
    """A part whose target is an object of this file."""

    value: Any = None

    def load(self):
        return self.value


def part(value, kind="network"):
    return Local(kind, "local", "here:Local", "S", value=value)


class Net:
    """A network.

    More of it, which is no summary.

    References:
        First paper (A et al., 2020), eq. 1,
        https://arxiv.org/abs/1
        Second paper, https://arxiv.org/abs/2

    Args:
        x: Given.
        channels: Width of each level,
            finest first.
        rate (float): With a type: and a colon.
        mode, other: One text for two.

    Raises:
        ValueError: Never.
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        *,
        channels: list[int],
        rate: float = 0.5,
        mode: Literal["a", "b"] = "a",
        other: int | None = None,
        inner: Slot[Encoder] = default("conv"),  # noqa: B008
    ) -> None: ...


@pytest.mark.smoke
def test_parameters_are_what_the_user_sets_in_order():
    found = read_parameters(part(Net))
    assert list(found) == ["channels", "rate", "mode", "other", "inner"]
    assert [one.default for one in found.values()] == [MISSING, 0.5, "a", None, default("conv")]
    assert [one.annotation for one in found.values()] == [
        list[int], float, Literal["a", "b"], int | None, Slot[Encoder],
    ]  # fmt: skip
    assert [one.slot for one in found.values()] == [None] * 4 + [SlotShape("encoder")]


def test_help_is_the_docstrings():
    assert {name: one.help for name, one in read_parameters(part(Net)).items()} == {
        "channels": "Width of each level, finest first.",
        "rate": "With a type: and a colon.",
        "mode": "One text for two.",
        "other": "One text for two.",
        "inner": "",
    }
    assert docstrings.read_summary(Net) == "A network."
    assert docstrings.read_paper(Net) == (
        "First paper (A et al., 2020), eq. 1, https://arxiv.org/abs/1\nSecond paper, https://arxiv.org/abs/2"
    )


def test_help_is_never_inherited_though_the_signature_is():
    class Child(Net):
        pass

    assert {one.help for one in read_parameters(part(Child)).values()} == {""}
    assert (docstrings.read_summary(Child), docstrings.read_paper(Child)) == ("", None)


def test_help_of_the_constructor_fills_in():
    class Documented:
        """Of the class.

        Args:
            a: From the class.
        """

        def __init__(self, *, a: int = 0, b: int = 0) -> None:
            """Of the constructor.

            Args:
                a: From the constructor.
                b: From the constructor.
            """

    helps = {name: one.help for name, one in read_parameters(part(Documented)).items()}
    assert helps == {"a": "From the class.", "b": "From the constructor."}


def test_help_of_the_annotation_stands_where_the_docstring_says_nothing():
    class Shared:
        """Of the class.

        Args:
            a: From the docstring.
        """

        def __init__(
            self,
            *,
            a: Annotated[int, "From the annotation."] = 0,
            b: Annotated[int | None, 3, "From the annotation."] = None,
            c: Annotated[Slot[Encoder], "A slot."] = default("conv"),  # noqa: B008
            d: Annotated[int, 3] = 0,
        ) -> None: ...

    found = read_parameters(part(Shared))
    assert [one.help for one in found.values()] == ["From the docstring.", "From the annotation.", "A slot.", ""]
    assert found["c"].slot == SlotShape("encoder")

    class Child(Shared):
        """Of the child."""

    assert read_parameters(part(Child))["b"].help == "From the annotation."  # it is the signature's, which is inherited


def test_takes_says_which_given_types_are_declared():
    assert list_given_types(part(Net)) == {"x", "cond"}
    assert list_given_types(part(lambda x, out, cond: None)) == {"x", "out", "cond"}
    assert list_given_types(part(lambda x: None, "decoder")) == {"x"}
    assert "out" in read_parameters(part(_function_with_out, "sampler"))


def _function_with_out(x: TensorType, *, out: int = 1) -> Any:
    """`out` is given to a network, and the user's in a sampler."""


def test_a_given_type_and_the_result_need_not_resolve():
    def target(x: Decimal, *, size: int = 3) -> Decimal: ...

    assert read_parameters(part(target))["size"].default == 3


def test_a_function_and_a_class_method_are_parts():
    def adam(parameters: Iterable[nn.Parameter], *, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999)): ...

    found = read_parameters(part(adam, "optimizer"))
    assert {name: one.default for name, one in found.items()} == {"lr": 1e-3, "betas": (0.9, 0.999)}
    assert list_given_types(part(adam, "optimizer")) == {"parameters"}

    class Holder:
        @classmethod
        def make(cls, x: TensorType, *, size: int = 2) -> Holder: ...

    assert list(read_parameters(part(Holder.make))) == ["size"]


def _function_with_use(x: TensorType, *, use: str = "mean", size: int = 1) -> Any:
    """In a spec `use` is the name of the part."""


class Mode(Enum):
    A = "a"


class Text(str, Enum):
    A = "a"


class Fresh:
    def __new__(cls, *, size: int = 4):
        return super().__new__(cls)


@dataclass
class Data:
    size: int = 4
    channels: list[int] = field(default_factory=lambda: [1, 2])


@pytest.mark.parametrize("target", [type("Some", bases, {}) for bases in ((nn.Module,), (), (Encoder,))])
def test_a_class_without_a_constructor_takes_nothing(target):
    assert read_parameters(part(target)) == {} and list_given_types(part(target)) == set()


@pytest.mark.parametrize("target", [Fresh, Data])
def test_other_ways_to_make_objects_are_read_too(target):
    assert read_parameters(part(target))["size"].default == 4
    assert target is Fresh or read_parameters(part(target))["channels"].default == [1, 2], "what its factory makes"
    assert docstrings.read_summary(target) == "", "a generated docstring is none"


def test_a_name_known_to_type_checkers_only_is_refused_with_the_way_out():
    def target(x, *, first: Decimal = 1): ...

    with pytest.raises(ValueError, match=r"network local, parameter 'first': .*Decimal.*not under TYPE_CHECKING"):
        read_parameters(part(target))


@dataclass
class Unhashable:
    size: int = 3

    def __call__(self, x: TensorType) -> nn.Module: ...


class Hashable:
    def __call__(self, x: TensorType, *, size: typing.Optional[int] = 3) -> nn.Module: ...


def make_sized(x: TensorType, *, size: typing.Optional[int] = 3, depth: int = 2) -> nn.Module:
    """Makes a network.

    Args:
        x: Given.
        size: Its size.
        depth: Its depth.
    """


def test_a_partial_and_an_object_that_is_called_resolve_their_annotations_where_the_function_stands():
    found = read_parameters(part(partial(partial(make_sized, size=5), depth=4)))
    assert {name: (one.default, one.help) for name, one in found.items()} == {
        "size": (5, "Its size."),
        "depth": (4, "Its depth."),
    }
    assert found["size"].annotation == int | None
    assert docstrings.read_summary(partial(make_sized)) == "Makes a network."
    assert read_parameters(part(Hashable()))["size"].annotation == int | None


def test_what_wraps_the_init_of_modules_adds_no_parameters(monkeypatch):
    """The fault: torch's compiler does, and a partial of a module without parameters was refused from then on."""
    init = nn.Module.__init__
    monkeypatch.setattr(nn.Module, "__init__", lambda self, *args, **kwargs: init(self, *args, **kwargs))
    some = type("Some", (nn.Module,), {})
    assert read_parameters(part(some)) == read_parameters(part(partial(some))) == {}


@dataclass
class Inner:
    lr: float
    betas: list[float] = field(default_factory=list)


test_signatures_that_no_part_can_have_are_refused_by_name = refusals(
    (lambda x, *, size=1: None, "expects a type for each parameter, got 'size'"),
    (lambda x, *sizes: None, r"each parameter to be declared, got '\*sizes'"),
    (lambda x, **options: None, r"each parameter to be declared, got '\*\*options'"),
    (lambda x, /: None, "pass by name, got 'x'"),
    (Unhashable(), r"expects a class, a function or a hashable object, got Unhashable\(size=3\)"),
    (_function_with_use, "expects another name for the parameter 'use': in a spec this key names the part"),
    start="network local.*",
    of=lambda target: read_parameters(part(target)),
)


def read_annotated(annotation):
    def target(x: TensorType, *, other): ...

    target.__annotations__["other"] = annotation
    read_parameters(part(target))


test_annotations_that_are_neither_plain_data_nor_a_slot_are_refused = refusals(
    (TensorType, r"plain data or a slot \(it is given x, out, cond by name\), got TensorType"),
    (list[collections.abc.Callable[[int], int]], "got Callable"),
    (Slot[Encoder] | Slot[Network], r"got slot of encoder \| slot of network"),
    (Slot[int], "got slot of int"),
    (Slot[Encoder] | str, r"got slot of encoder \| str"),
    (tuple[Slot[Encoder], ...], r"got tuple\[slot of encoder, \.\.\.\]"),
    (dict[int, Slot[Encoder]], r"got dict\[int, slot of encoder\]"),
    (list[Slot[Encoder] | None], r"got list\[slot of encoder \| None\]"),
    (Slot, "got Slot"),
    (Literal[Mode.A], "got <Mode.A: 'a'>"),
    (list[Literal["a", Text.A]], r"got 'a' \| <Text.A: 'a'>"),
    (Literal[b"a"], "got b'a'"),
    (dict[str, Inner], r"expected plain data .*got dict\[str, Inner"),
    of=read_annotated,
    start="network local, parameter 'other': .*",
)


@pytest.mark.parametrize(
    ("annotation", "shape"),
    [
        (Slot[Encoder], SlotShape("encoder")),
        (Slot[Model], SlotShape("model")),
        (Slot[Encoder] | None, SlotShape("encoder", optional=True)),
        (typing.Optional[Slot[Encoder]], SlotShape("encoder", optional=True)),
        (Annotated[Slot[Encoder], "x"], SlotShape("encoder")),
        (list[Slot[Regularizer]], SlotShape("regularizer", "list")),
        (dict[str, Slot[Regularizer]] | None, SlotShape("regularizer", "dict", optional=True)),
        (dict[str, Slot[Weight] | float], SlotShape("weight", "dict", number=True)),
        (dict[str, typing.Union[Slot[Weight], int, float]] | None, SlotShape("weight", "dict", True, True)),
        (Slot[Weight] | float, SlotShape("weight", number=True)),
        (list[int] | None, None),
        (Any, None),
    ],
)
def test_slot_shapes(annotation, shape):
    assert parse_slot(annotation) == shape


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.name != "model"], ids=lambda kind: kind.name)
def test_every_kind_has_a_slot(kind):
    import modkit.kinds

    assert parse_slot(Slot[getattr(modkit.kinds, kind.protocol)]) == SlotShape(kind.name)


@dataclass
class Settings:
    inner: Inner | list[int] | None = None


@dataclass
class Outer:
    """Settings.

    Args:
        inner: Slot beside records.
    """

    inner: Slot[Encoder] = default("conv")  # noqa: B008
    one: Inner = field(default_factory=lambda: Inner(1.0))
    many: list[Inner] = field(default_factory=list)
    named: dict[str, Inner] = field(default_factory=dict)
    either: float | Inner | None = None


def test_records_are_read_as_parts_are_with_their_shapes():
    found = read_signature(Outer, (), "train")
    shapes = [None, RecordShape(Inner), RecordShape(Inner, "list"), RecordShape(Inner, "dict")]
    shapes.append(RecordShape(Inner, None, float | None))
    assert [one.record for one in found.values()] == shapes
    assert [one.default for one in found.values()] == [default("conv"), Inner(1.0), [], {}, None]
    assert (found["inner"].slot, found["inner"].help) == (SlotShape("encoder"), "Slot beside records.")
    assert list(read_signature(Inner, ("betas",), "train.one")) == ["lr"]
    with pytest.raises(ValueError, match="train, parameter 'inner': expected plain data or a slot, got Inner"):
        read_signature(Settings, (), "train")


def test_defaults_of_our_own_parts_fit_their_annotations_and_have_help():
    for entry in get_registry().list_parts():
        if entry.distribution == "modkit-generative":
            for one in read_parameters(entry.part).values():
                assert one.help, f"{entry.part}, parameter {one.name!r} has no help"
                if one.slot is None and one.default is not MISSING:
                    assert validate(one.default, one.annotation) is None, f"{entry.part}, parameter {one.name!r}"
