"""Signatures of parts: the source of their parameters, defaults and help.

There are three sorts of parameters: types that the kind provides (`x`, `cond`, `schedule`, …), which users do not set;
slots, annotated `Slot[Encoder]`, which receive factories; and plain data, which `modkit.parts.validation` checks
against the annotation:

    bool  int  float  str  None  Literal of them  list  tuple  dict  unions of them

The help of a parameter comes from the docstring or, if that does not document it, from the first text in its
annotation, which several parts can share: `Annotated[int, "Number of steps."]`.

Training settings are read in the same way. Their fields may also be records, dataclasses whose own fields are read in
turn; a part cannot have records.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache, partial, reduce
from operator import or_
from typing import Any, Literal, Union, get_args, get_origin

from modkit.kinds import Implies, Initial, Own, Sampling, Slot, Unless
from modkit.part import Part
from modkit.parts.annotation import DICTS, LISTS, list_members, name_kind, render, strip_annotated
from modkit.parts.docstrings import read_arguments
from modkit.parts.registry import find_kind
from modkit.parts.validation import validate
from modkit.types import TensorType, refuse_value

__all__ = [
    "MISSING",
    "Parameter",
    "RecordShape",
    "SlotShape",
    "read_parameters",
    "read_signature",
    "parse_slot",
    "list_given_types",
    "is_required",
    "is_tensor_only",
]

_EMPTY_INIT = (
    "typing",
    "torch.nn.modules.module",
)  # the `__init__` of Protocol and Module


@dataclass(frozen=True)
class SlotShape:
    """What a slot accepts.

    Args:
        kind: Kind of the parts.
        container: `list` or `dict` if it holds several parts, None for one part.
        optional: Whether the slot may be None.
        number: Whether a number may take the place of a part.
        default: The name of the part in it where a spec names none, as far as that is known.
    """

    kind: str
    container: Literal["list", "dict"] | None = None
    optional: bool = False
    number: bool = False
    default: str | None = None


@dataclass(frozen=True)
class RecordShape:
    """How a parameter holds records: dataclasses whose fields are read like the parameters of a part.

    Args:
        type: The dataclass.
        container: `list` or `dict` if it holds several records, None for one record.
        plain: Annotation of plain data that may take the place of a record, as `bool` in `bool | Record`, or None.
    """

    type: type[Any]
    container: Literal["list", "dict"] | None = None
    plain: Any = None


@dataclass(frozen=True)
class Parameter:
    """A parameter of a part that the user can set.

    Args:
        name: Its keyword.
        annotation: Its resolved type.
        default: Its default (`modkit.kinds.Default` for a slot's default part), or `MISSING` if it is required.
        help: Its description.
        slot: What it accepts, if it is a slot.
        record: What it accepts, if it holds records.
        own: Whether its values suit only its part.
        initial: Whether only a new model reads what it names.
        sampling: Whether only sampling reads it.
        unless: The parameter beside which it has no effect, or nothing.
        implies: The parts that its values imply for the slots beside it.
        owner: Name of the class or function that has it.
    """

    name: str
    annotation: Any
    default: Any
    help: str
    slot: SlotShape | None
    record: RecordShape | None = None
    own: bool = False
    initial: bool = False
    sampling: bool = False
    unless: str = ""
    implies: Implies = Implies({})
    owner: str = ""

    def validate(self, value: object) -> str | None:
        """Returns why plain data does not fit its type, ranges or choices, or None."""
        return validate(value, self.annotation) or self.refuse(value)

    def refuse(self, value: object) -> str | None:
        """Returns why a value of a fitting type is outside of its ranges or choices, or None."""
        return refuse_value(self.owner, self.name, value, self.annotation)


def read_parameters(part: Part) -> dict[str, Parameter]:
    """Reads the parameters of a part that the user can set, in the order of its signature.

    Examples:
        >>> from modkit import find
        >>> list(read_parameters(find("lr-schedule", "cosine")))
        ['warmup', 'floor']

    Raises:
        ValueError: If the signature is not valid for a part; the message names the part and the parameter.
        ImportError: If the target cannot be imported.
    """
    given = find_kind(part.kind).given
    found = read_signature(part.load(), given, part)
    if "use" in found:
        raise ValueError(f"{part} expects another name for the parameter 'use': in a spec this key names the part")
    for one in found.values():
        if one.record is not None:
            raise ValueError(_refuse(part, one.name, given, one.annotation))
    return found


def read_signature(target: Callable[..., Any], given: Sequence[str], owner: object) -> dict[str, Parameter]:
    """Reads the parameters of a class or function that the user can set, in the order of its signature.

    Args:
        target: The class or function, or a dataclass of settings.
        given: Names of parameters that the user does not set.
        owner: Its name in messages.

    Raises:
        ValueError: If the signature is not valid; the message names the owner and the parameter.
    """
    return dict(_read_cached(target, _get_code(owner, target), tuple(given), owner))


@lru_cache(maxsize=1024)
def _read_cached(
    target: Callable[..., Any], code: types.CodeType | None, given: tuple[str, ...], owner: object
) -> dict[str, Parameter]:
    """Reads a signature once for each `code` of a target, since a planner reads it again for every part."""
    helps = read_arguments(target)
    called = getattr(target, "__name__", type(target).__name__)
    result = {}
    for name, declared in _inspect(owner, target).items():
        if name in given:
            continue
        annotation = _resolve(owner, target, declared)
        record = _parse_record(annotation)
        try:
            slot = parse_slot(annotation) if record is None else None
        except ValueError as error:
            raise ValueError(f"{owner}, parameter {name!r}: {error}") from error
        if slot is None and record is None and (odd := _find_not_plain(annotation)) is not None:
            raise ValueError(_refuse(owner, name, given, odd))
        help = helps.get(name) or _get_help(annotation)
        marks = getattr(annotation, "__metadata__", ())
        unless = next((one.name for one in marks if isinstance(one, Unless)), "")
        implies = next((mark for mark in marks if isinstance(mark, Implies)), Implies({}))
        flags = Own in marks, Initial in marks, Sampling in marks
        plain = _get_default(target, declared)
        result[name] = Parameter(name, annotation, plain, help, slot, record, *flags, unless, implies, called)
    return result


def list_given_types(part: Part) -> set[str]:
    """Returns which of the types that its kind provides are parameters of a part.

    Raises:
        ValueError: If the signature is not valid for a part; the message names the part and the parameter.
        ImportError: If the target cannot be imported.
    """
    return set(find_kind(part.kind).given) & set(_inspect(part, part.load()))


def is_required(part: Part, name: str) -> bool:
    """Whether a part cannot be built without a type, since the parameter has no default."""
    return _inspect(part, part.load())[name].default is inspect.Parameter.empty


def is_tensor_only(part: Part, name: str) -> bool:
    """Whether a part annotates a type by `TensorType`: it then accepts one tensor, but no hierarchy."""
    return _inspect(part, part.load())[name].annotation in (TensorType, TensorType.__name__)


def parse_slot(annotation: Any) -> SlotShape | None:
    """Returns what the slot of an annotation accepts, or None if the annotation has no slot.

    Raises:
        ValueError: If the annotation combines a slot with something else.
    """
    if not _has_slot(annotation):
        return None
    alternatives = list_members(annotation)
    inside = [member for member in alternatives if member is not type(None)]
    container: Literal["list", "dict"] | None = None
    if len(inside) == 1:
        origin, args = get_origin(inside[0]), get_args(inside[0])
        if origin is list:
            container, inside = "list", list_members(args[0])
        elif origin is dict and args[0] is str:
            container, inside = "dict", list_members(args[1])
    slots = [member for member in inside if get_origin(member) is Slot]
    numbers = [member for member in inside if member in (int, float)]
    kind = name_kind(get_args(slots[0])[0]) if slots else None
    if kind is None or len(slots) != 1 or len(slots) + len(numbers) != len(inside):
        raise ValueError(
            "expected Slot of one kind's Protocol, list[Slot[…]] or dict[str, Slot[…]], each maybe `| float` and "
            f"`| None`, got {render(annotation)}"
        )
    return SlotShape(kind, container, type(None) in alternatives, bool(numbers))


def _parse_record(annotation: Any) -> RecordShape | None:
    """Returns the records that an annotation holds, or None."""
    origin, args = get_origin(annotation), get_args(annotation)
    container: Literal["list", "dict"] | None = "list" if origin is list else "dict" if origin is dict else None
    members = list_members(args[-1] if container else annotation)
    held = [one for one in members if isinstance(one, type) and is_dataclass(one)]
    others = [one for one in members if one in (bool, int, float, str, type(None))]
    if len(held) != 1 or len(members) != 1 + len(others):
        return None
    return RecordShape(held[0], container, reduce(or_, others) if others else None)


def _inspect(owner: object, target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    return _inspect_cached(owner, target, _get_code(owner, target))


@lru_cache(maxsize=1024)
def _inspect_cached(
    owner: object, target: Callable[..., Any], code: types.CodeType | None
) -> dict[str, inspect.Parameter]:
    if getattr(_get_function(target), "__module__", None) in _EMPTY_INIT or _find_definer(target) in _EMPTY_INIT:
        return {}
    try:
        declared = dict(inspect.signature(target).parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{owner} expects a class or function with a signature, got {target!r}") from error
    for name, parameter in declared.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ValueError(f"{owner} expects each parameter to be declared, got '{parameter}'")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ValueError(f"{owner} expects parameters that pass by name, got {name!r} by position only")
    return declared


def _get_function(target: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that has the signature of a target."""
    if isinstance(target, partial):
        return _get_function(target.func)
    if not isinstance(target, type):
        is_function = inspect.isroutine(target) or hasattr(target, "__wrapped__")
        return target if is_function else type(target).__call__
    init: Callable[..., Any] = inspect.getattr_static(target, "__init__")
    return init if inspect.isfunction(init) else target.__new__


def _get_code(owner: object, target: Callable[..., Any]) -> types.CodeType | None:
    """Returns the code of a target, which must be hashable, since signatures are cached."""
    try:
        hash(target)
    except TypeError as error:
        raise ValueError(f"{owner} expects a class, a function or a hashable object, got {target!r}") from error
    return getattr(_get_function(target), "__code__", None)


def _find_definer(target: Callable[..., Any]) -> str | None:
    """Returns the module of the class that defines a class's `__init__`, which torch's tools may have wrapped."""
    if isinstance(target, partial):
        return _find_definer(target.func)
    classes = target.__mro__ if isinstance(target, type) else ()
    return next((one.__module__ for one in classes if "__init__" in vars(one)), None)


def _resolve(owner: object, target: Callable[..., Any], declared: inspect.Parameter) -> Any:
    """Resolves the annotation of only one parameter, since others (of types, of the result) may not resolve."""
    if declared.annotation is declared.empty:
        raise ValueError(f"{owner} expects a type for each parameter, got {declared.name!r} without one")
    holder: Any = types.SimpleNamespace(__annotations__={declared.name: declared.annotation})
    names = getattr(inspect.unwrap(_get_function(target)), "__globals__", {})
    try:
        return typing.get_type_hints(holder, globalns=names, include_extras=True)[declared.name]
    except Exception as error:
        raise ValueError(
            f"{owner}, parameter {declared.name!r}: cannot resolve the annotation {declared.annotation!r}: {error}; "
            "import what it names at run time, not under TYPE_CHECKING"
        ) from error


def _refuse(owner: object, name: str, given: Sequence[str], annotation: Any) -> str:
    told = f" (it is given {', '.join(given)} by name)" if given else ""
    return f"{owner}, parameter {name!r}: expected plain data or a slot{told}, got {render(annotation)}"


def _get_help(annotation: Any) -> str:
    """Returns the first text in the `Annotated` metadata of an annotation."""
    metadata = getattr(annotation, "__metadata__", ())
    return next((one for one in metadata if isinstance(one, str)), "")


def _get_default(target: Callable[..., Any], declared: inspect.Parameter) -> Any:
    if declared.default is declared.empty:
        return MISSING
    if isinstance(target, type) and is_dataclass(target):
        for field in fields(target):
            if field.name == declared.name and field.default_factory is not MISSING:
                return field.default_factory()
    return declared.default


def _has_slot(annotation: Any) -> bool:
    return annotation is Slot or get_origin(annotation) is Slot or any(map(_has_slot, get_args(annotation)))


def _find_not_plain(annotation: Any) -> Any | None:
    """Returns the first member of an annotation that is not plain data, or None."""
    annotation = strip_annotated(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    if annotation in (bool, int, float, str, type(None), Any, Ellipsis):
        return None
    if origin is Literal:
        return None if all(type(arg) in (bool, int, str, type(None)) for arg in args) else annotation
    if (origin or annotation) not in (Union, types.UnionType, tuple, *LISTS, *DICTS):
        return annotation
    return next((odd for arg in args if (odd := _find_not_plain(arg)) is not None), None)
