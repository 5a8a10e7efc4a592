"""Members: whether a part has those that its kind requires, and whether its optional ones are what is expected.

What lacks a member of its kind's Protocol is refused where it is built, for many are first used in the middle of
training, as those of a sampler are. A part defines only the optional members that it has (`modkit.kinds.extras`), so an
attribute of a part's own may have the name of one by accident: a network whose width is `units`, or whose gate is
`update`. It would be read in training, long after the part was built.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from numbers import Real
from types import FunctionType
from typing import Any, Protocol

import numpy as np
from torch import Tensor, nn

from modkit.errors import shorten
from modkit.kinds import Kind, NetworkExtras, PretrainedExtras, PromiseExtras, read_extras
from modkit.models.model import Model
from modkit.nn.units import NETWORK_KINDS
from modkit.part import Part
from modkit.parts.registry import find_kind
from modkit.types import TensorType

__all__ = ["check_members", "describe_lack", "describe_unread"]

_FUNCTIONS = (FunctionType, staticmethod, classmethod)
_HELD = ("_parameters", "_buffers", "_modules")  # where a module keeps what is no plain attribute
_LISTS = (list, tuple, nn.ModuleList, nn.ModuleDict, nn.Sequential, nn.ParameterList)
_MAPPINGS = (Mapping, nn.ModuleDict, nn.ParameterDict)
_TYPES: dict[str, type] = {"nn.Module": nn.Module, "Tensor": Tensor, "TensorType": TensorType, "str": str}


def check_members(kind: str, part: object) -> None:
    """Checks the optional members of a part against the annotations of their records.

    Nothing is called: properties, and members that are made when they are read, are not looked at.

    Args:
        kind: The kind of the part.
        part: The part.

    Examples:
        >>> check_members("network", nn.Identity())

    Raises:
        ValueError: If a member cannot be what its record expects.
    """
    for name, (text, expected) in _list_members(find_kind(kind)).items():
        if not _is_stored(part, name):
            continue
        value = getattr(part, name)
        if value is not None and not _is_valid(value, expected):
            got = shorten(" ".join(repr(value).split()))
            wanted = f"`{name}` is an optional member of the kind {kind}, expected {text}"
            raise ValueError(f"{wanted}, got {got}: give it this type, or rename it")


def describe_lack(kind: str, part: object) -> str | None:
    """Describes which members of its kind a part lacks, without reading those that it has; returns None if it has all.

    Examples:
        >>> describe_lack("encoder", nn.Identity())
        'expected an encoder with `h`, got an Identity without it'
    """
    row = find_kind(kind)
    if row.protocol == Model.__name__:
        return None if isinstance(part, Model) else f"expected a Model, got {_add_article(type(part).__name__)}"
    lacking = [name for name in _list_required(row) if not _has(part, name)]
    if not lacking:
        return None
    names = ", ".join(f"`{name}`" for name in lacking)
    without = "it" if len(lacking) == 1 else "them"
    return f"expected {_add_article(kind)} with {names}, got {_add_article(type(part).__name__)} without {without}"


def describe_unread(part: Part, value: object, types: Mapping[str, Any]) -> str | None:
    """Describes which of a package's own conditions a network is given and does not read; None if it reads all."""
    own = types["cond"].own if part.kind in NETWORK_KINDS and "cond" in types else {}
    unread = [name for name in own if name not in read_extras(value, NetworkExtras).own_conditions]
    names = ", ".join(unread)
    return f"expected {_add_article(part.kind)} with {names} in `own_conditions`, got {part.name}" if unread else None


@cache
def _list_required(kind: Kind) -> tuple[str, ...]:
    """Lists the members that the Protocol of a kind requires."""
    own = [one for one in kind.load_protocol().__mro__ if issubclass(one, Protocol)]
    names = [name for one in own for name in (*one.__annotations__, *vars(one))]
    return tuple(dict.fromkeys(name for name in names if name == "__call__" or not name.startswith("_")))


def _has(part: object, name: str) -> bool:
    """Whether a part has a member; properties are not read."""
    return any(name in vars(one) for one in type(part).__mro__) or hasattr(part, name)


def _add_article(noun: str) -> str:
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


@cache
def _list_members(kind: Kind) -> dict[str, tuple[str, ast.expr]]:
    """Lists the optional members of the parts of a kind, with their annotations as text and parsed."""
    shared = NetworkExtras if kind.name in NETWORK_KINDS else None
    records = (kind.load_extras(), shared, PromiseExtras, PretrainedExtras)
    found = {one.name: _write(one.type) for record in records if record for one in fields(record)}
    return {name: (text, ast.parse(text, mode="eval").body) for name, text in found.items()}


def _write(annotation: Any) -> str:
    """Writes the annotation of a field, which is no text where its module evaluates annotations."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _is_stored(part: object, name: str) -> bool:
    """Whether a member of a part is an attribute or a method, so that reading it computes nothing."""
    declared = next((vars(one)[name] for one in type(part).__mro__ if name in vars(one)), None)
    if declared is not None:
        return isinstance(declared, _FUNCTIONS) or not hasattr(type(declared), "__get__")
    held = getattr(part, "__dict__", {})
    return name in held or (isinstance(part, nn.Module) and any(name in held.get(key, ()) for key in _HELD))


def _is_valid(value: Any, expected: ast.expr) -> bool:
    """Whether a value may be what an annotation says, as far as this shows without calling it."""
    if isinstance(expected, ast.BinOp):
        return _is_valid(value, expected.left) or _is_valid(value, expected.right)
    name, args = _take_apart(expected)
    if name == "Callable":
        return callable(value) and (not isinstance(value, nn.Module) or _takes(value, *args))
    if name in ("Sequence", "tuple"):
        iterable = isinstance(value, Iterable) and not isinstance(value, str)
        return (
            iterable
            and not (isinstance(value, Tensor) and value.ndim == 0)
            and (not isinstance(value, _LISTS) or all(_is_valid(item, args[0]) for item in value))
        )
    if name == "Mapping":
        return isinstance(value, _MAPPINGS)
    if name == "Literal":
        return value in map(ast.literal_eval, args)
    if name in ("bool", "int", "float"):
        if isinstance(value, Tensor) and value.is_meta:
            return value.numel() == 1
        number = value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value
        return isinstance(number, Real) and (name != "bool" or number in (0, 1))
    if name in _TYPES:
        return isinstance(value, _TYPES[name])
    return name != "None" and not isinstance(value, str | Real | Tensor)


def _take_apart(expected: ast.expr) -> tuple[str, list[ast.expr]]:
    """Takes an annotation such as `tuple[str, ...]` apart, into its name and its arguments."""
    if not isinstance(expected, ast.Subscript):
        return ast.unparse(expected), []
    inside = expected.slice
    return ast.unparse(expected.value), inside.elts if isinstance(inside, ast.Tuple) else [inside]


def _takes(module: nn.Module, arguments: ast.expr, result: ast.expr) -> bool:
    """Whether a module can be a `Callable`: it is called with as many arguments, and what it returns is used."""
    if ast.unparse(result) == "None":
        return False
    if not isinstance(arguments, ast.List):
        return True
    try:
        inspect.signature(module.forward).bind(*arguments.elts)
    except TypeError:
        return False
    except ValueError:  # a function that is not written in Python has no signature
        return True
    return True
