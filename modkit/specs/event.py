"""The type of one sample, and those of its fields, as a spec without data gives them in `x`.

x: {shape: [1, 8, 8], range: [-1, 1], fields: {labels: {shape: [], classes: 10}}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modkit.errors import Problem, SpecError, join, suggest
from modkit.parts.validation import validate
from modkit.specs.node import Node, describe
from modkit.specs.spec import Spec
from modkit.types import TensorType

__all__ = ["KEYS", "MAX_RANK", "read_fields", "read_type", "write_types"]

MAX_RANK = 8
"""Most sizes in a shape."""

KEYS = {
    "shape": list[int], "range": tuple[float, float] | None, "classes": int | None, "std": float | None,
    "levels": int | None,
}  # fmt: skip
"""The keys of a type, with the annotation of each."""


def read_type(spec: Spec) -> TensorType:
    """Reads the type of one sample from the `x` of a spec without data.

    Examples:
        >>> print(read_type(Spec(model="gan", x={"shape": [1, 8, 8], "range": [-1, 1]})))
        1×8×8 in [-1, 1]

    Raises:
        SpecError: If `x` does not describe a type.
    """
    return _read(spec, spec.x or Node({}), "x", {**KEYS, "fields": dict[str, Any]})


def read_fields(spec: Spec) -> dict[str, TensorType]:
    """Reads the types of a sample's fields from the `x.fields` of a spec without data.

    Raises:
        SpecError: If a field's entry does not describe a type.
    """
    every: Any = (spec.x or Node({})).get("fields") or {}
    types = {}
    for name, node in every.items():
        path = join(("x", "fields", name))
        if not isinstance(node, Node):
            message = f"got {describe(node)}, expected a mapping of {', '.join(KEYS)}"
            raise SpecError(Problem(path, message, spec.find_position(path)))
        types[name] = _read(spec, node, path, KEYS)
    return types


def _read(spec: Spec, node: Node, path: str, keys: Mapping[str, Any]) -> TensorType:
    for key, value in node.items():
        place = f"{path}.{join((key,))}"
        if key not in keys:
            message = f"got an unknown key, expected {', '.join(keys)}"
            raise SpecError(Problem(place, message, spec.find_position(place, key=True), suggest(key, keys)))
        if reason := validate(value, keys[key]):
            raise SpecError(Problem(place, reason, spec.find_position(place)))
    shape: Any = node.get("shape")
    position = spec.find_position(path)
    if shape is None or len(shape) > MAX_RANK:
        raise SpecError(Problem(path, f"expected a shape of at most {MAX_RANK} sizes, and range or classes", position))
    try:
        given: Any = [node.get(key) for key in KEYS if key != "shape"]
        return TensorType(shape, *given)
    except ValueError as error:
        raise SpecError(Problem(path, str(error), position)) from None


def write_types(x: TensorType, fields: Mapping[str, TensorType]) -> dict[str, Any]:
    """Writes these types as the `x` of a spec; the inverse of `read_type` and `read_fields`."""
    inner = {name: _write_type(type) for name, type in fields.items()}
    return {**_write_type(x), **({"fields": inner} if inner else {})}


def _write_type(type: TensorType) -> dict[str, Any]:
    written: dict[str, Any] = {"shape": list(type.shape)}
    if type.range is not None:
        written["range"] = list(type.range)
    given = {"classes": type.classes, "std": type.std, "levels": type.levels}
    return {**written, **{key: value for key, value in given.items() if value is not None}}
