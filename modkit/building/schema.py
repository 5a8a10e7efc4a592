"""The JSON Schema of specs, for editors: every installed kind, part and parameter, with types and help.

A slot is a union over the parts of its kind, distinguished by `use`; a mapping without `use` is the slot's default
part, or one that a part in another slot implies. `modkit check` covers what requires the built parts: whether types
fit, and where references lead.

References:
    JSON Schema, draft 7, https://json-schema.org/draft-07
"""

from __future__ import annotations

import types
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin

from modkit.kinds import Default
from modkit.parts import docstrings
from modkit.parts.annotation import DICTS, LISTS, list_members, strip_annotated
from modkit.parts.entry import Entry
from modkit.parts.registry import get_registry
from modkit.parts.signature import MISSING, Parameter, SlotShape, read_parameters, read_signature
from modkit.parts.validation import LIMIT, validate
from modkit.specs.event import KEYS
from modkit.specs.implied import list_implied
from modkit.specs.settings import Evaluation, Settings
from modkit.types import list_ranges

__all__ = ["make_schema"]

_Schema: TypeAlias = dict[str, Any]
_DEFAULT = ":default"  # suffix of the definition of a part that is used without `use`
_SCALARS: dict[Any, _Schema] = {
    bool: {"type": "boolean"},
    int: {"type": "integer", "exclusiveMinimum": -LIMIT, "exclusiveMaximum": LIMIT},
    float: {"type": "number"},
    str: {"type": "string"},
    type(None): {"type": "null"},
    None: {"type": "null"},
}
_REFERENCE: _Schema = {
    "type": "object",
    "description": "The part built at another path.",
    "properties": {"ref": {"type": "string", "description": "Its path, such as model.autoencoder.encoder."}},
    "required": ["ref"],
    "additionalProperties": False,
}
_TRAINED: _Schema = {
    "type": "object",
    "description": "A trained part of another run, frozen unless `train` is set.",
    "properties": {
        "use": {"enum": ["run"]},
        "path": {"type": "string", "description": "The run's directory."},
        "at": {"type": "string", "description": "Path of the part in that run's spec.", "default": "model"},
        "train": {"type": "boolean", "description": "Whether it is trained further.", "default": False},
        "part": {"type": "object", "description": "Written by modkit in resolved specs."},
    },
    "required": ["use", "path"],
    "additionalProperties": False,
}


def make_schema() -> dict[str, Any]:
    """Makes the JSON Schema (draft 7) of a spec with the installed parts.

    A part whose target cannot be imported accepts any parameters.

    Returns:
        The schema as plain data, which JSON can hold.

    Examples:
        >>> sorted(make_schema()["properties"])
        ['data', 'evaluate', 'model', 'name', 'train', 'x']
    """
    kinds = get_registry().kinds
    entries = [(kind, entry) for kind in kinds for entry in get_registry().list_parts(kind)]
    fields = {"type": "object", "additionalProperties": _make_type("Type of a field of the sample.", {})}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "A spec of modkit",
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "description": "Names the run: runs/NAME."},
            "data": _make_slot(SlotShape("data")),
            "model": _make_slot(SlotShape("model")),
            "train": _make_record(Settings),
            "evaluate": _make_record(Evaluation),
            "x": _make_type("Type of one sample, for a spec without data.", {"fields": fields}),
        },
        "required": ["model"],
        "additionalProperties": False,
        "definitions": {
            **{kind.replace("/", "."): _make_kind(kind) for kind in kinds},
            **{_make_name(kind, one.part.name): _make_part(one) for kind, one in entries},
            **{_make_name(kind, one.part.name, _DEFAULT): _make_part(one, named=False) for kind, one in entries},
        },
    }


def _make_type(description: str, more: _Schema) -> _Schema:
    """Makes the schema of a type of samples, as in `x`."""
    return {
        "type": "object",
        "description": description,
        "properties": {**{name: _make_plain(annotation) for name, annotation in KEYS.items()}, **more},
        "required": ["shape"],
        "additionalProperties": False,
    }


def _make_kind(kind: str) -> _Schema:
    """Makes the schema of a part of a kind: its name, a mapping with `use`, a reference or a part of another run."""
    parts = [entry.part for entry in get_registry().list_parts(kind)]
    names = [part.name for part in parts]
    others = [other for part in parts for other in part.aliases]
    named = [{"$ref": f"#/definitions/{_make_name(kind, name)}"} for name in names]
    return {
        "description": get_registry().find_kind(kind).summary,
        "anyOf": [{"enum": names}, *([{"enum": others}] if others else []), *named, _REFERENCE, _TRAINED],
    }


def _make_part(entry: Entry, *, named: bool = True) -> _Schema:
    """Makes the schema of a part's parameters, with its names unless it is the slot's default."""
    part = entry.part
    names = [part.name, *part.aliases]
    use = {"use": {"enum": names, "description": part.summary}} if named else {}
    try:
        found = _make_object(read_parameters(part), docstrings.read_summary(part.load()) or part.summary)
    except Exception:  # a plug-in's target may fail to import in any way
        found = {"type": "object", "description": part.summary, "properties": {}, "required": []}
    return {**found, "properties": {**use, **found["properties"]}, "required": [*use, *found["required"]]}


def _make_object(declared: Mapping[str, Parameter], description: str) -> _Schema:
    implied: dict[str, set[str]] = {}
    for _, found in list_implied(declared):
        for name, default in found.items():
            implied.setdefault(name, set()).add(default.name)
    return {
        "type": "object",
        "description": description,
        "properties": {name: _make_parameter(one, implied.get(name, set())) for name, one in declared.items()},
        "required": [name for name, parameter in declared.items() if parameter.default is MISSING],
        "additionalProperties": False,
    }


def _make_parameter(parameter: Parameter, implied: Collection[str]) -> _Schema:
    """Makes the schema of a parameter; a slot without `use` may stand for an implied part as well."""
    found = _make_value(parameter, implied)
    if parameter.help:
        found = {"description": parameter.help, **({"allOf": [found]} if "$ref" in found else found)}
    default = parameter.default.name if isinstance(parameter.default, Default) else parameter.default
    return found if validate(default, Any) else {**found, "default": default}


def _make_value(parameter: Parameter, implied: Collection[str]) -> _Schema:
    if parameter.slot:
        default = {parameter.default.name} if isinstance(parameter.default, Default) else set()
        return _make_slot(parameter.slot, sorted(default.union(implied)))
    if parameter.record:
        held = _make_record(parameter.record.type)
        if parameter.record.plain is not None:
            held = {"anyOf": [*map(_make_plain, list_members(parameter.record.plain)), held]}
        return _wrap_container(held, parameter.record.container)
    return _make_plain(parameter.annotation)


def _make_slot(slot: SlotShape, defaults: Sequence[str] = ()) -> _Schema:
    choices: list[_Schema] = [{"$ref": f"#/definitions/{slot.kind.replace('/', '.')}"}]
    choices += [{"$ref": f"#/definitions/{_make_name(slot.kind, name, _DEFAULT)}"} for name in defaults]
    if slot.number:
        choices.append({"type": "number"})
    held = _wrap_container(choices[0] if len(choices) == 1 else {"anyOf": choices}, slot.container)
    return {"anyOf": [held, {"type": "null"}]} if slot.optional else held


def _wrap_container(held: _Schema, container: str | None) -> _Schema:
    if container == "list":
        return {"type": "array", "items": held}
    if container == "dict":
        return {"type": "object", "additionalProperties": held}
    return held


def _make_record(record: type[Any]) -> _Schema:
    return _make_object(read_signature(record, (), record.__name__), docstrings.read_summary(record) or record.__name__)


def _make_plain(annotation: Any, bounds: _Schema | None = None) -> _Schema:
    """Makes the schema of an annotation of plain data; `bounds` are the keys of its numbers' ranges."""
    if bounds is None:
        bounds = dict(bound for mark in list_ranges(annotation) for bound in mark.write_schema().items())
    make = partial(_make_plain, bounds=bounds)
    annotation = strip_annotated(annotation)
    origin, args = get_origin(annotation), get_args(annotation)
    kind = origin or annotation
    if origin in (Union, types.UnionType):
        return {"anyOf": [make(member) for member in list_members(annotation)]}
    if origin is Literal:
        return {"enum": list(args)}
    if kind is tuple and args[-1:] != (Ellipsis,):
        return {"type": "array", "items": [make(arg) for arg in args], "minItems": len(args), "maxItems": len(args)}
    if kind in LISTS or kind is tuple:
        return {"type": "array", "items": make(args[0])} if args else {"type": "array"}
    if kind in DICTS:
        return {"type": "object", "additionalProperties": make(args[1])} if args else {"type": "object"}
    return {**_SCALARS.get(annotation, {}), **(bounds if annotation in (int, float) else {})}


def _make_name(kind: str, part: str, suffix: str = "") -> str:
    return f"{kind}:{part}".replace("/", ".") + suffix
