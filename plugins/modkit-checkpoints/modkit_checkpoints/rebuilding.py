"""Rebuilds the tensors, arrays and containers that a pickle's records describe; any other record is a `Placeholder`.

A storage is a tensor of one axis and a tensor is a view of it, so tensors that shared a storage still do; an object
that the pickle refers to twice is one object. Only the functions of this file are called. Nesting, copies and the
number of values (shared ones counted as often as they occur) are bounded, so that every walk through a result is short,
and so is the number of keys that may share one hash.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from modkit_checkpoints.placeholder import Placeholder
from modkit_checkpoints.unpickler import MOST_ALIKE, MOST_IN_A_KEY, Record, may_be_alike

__all__ = ["BUILDERS", "Budget", "StorageType", "rebuild"]

T = TypeVar("T")

_MOST_VALUES = 10_000_000
_DEEPEST = 100
_CONTAINERS = (dict, list, tuple, set, frozenset)
_VISITED = (*_CONTAINERS, Record, type)
_MOST_EXPANDED = 2**24  # values of a tensor that has more of them than its storage


@dataclass
class Budget:
    """The number of values and bytes that may still be copied out of a file, and of keys that may share one hash."""

    left: int
    alike: int = MOST_ALIKE

    def count_keys(self, keys: Iterable[Any]) -> None:
        """Counts the keys whose hashes may be equal; a `ValueError` says that there are too many."""
        self.alike -= sum(map(may_be_alike, keys))
        if self.alike < 0:
            raise ValueError(f"expected at most {MOST_ALIKE} large numbers or tuples of numbers as keys")

    def spend(self, values: Sequence[Any]) -> None:
        """Counts a copy of each value; a `ValueError` says that nothing is left."""
        self.left -= sum(len(value) for value in values if isinstance(value, (str, bytes, bytearray, *_CONTAINERS)))
        if self.left < 0:
            raise ValueError("damaged pickle: expected each value to be used once or twice, got copies of copies")


@dataclass(frozen=True)
class StorageType:
    """A class of storages; untyped bytes have uint8."""

    dtype: torch.dtype


def rebuild(root: Any, builders: Mapping[str, Callable[..., Any]], budget: Budget) -> Any:
    """Rebuilds the values of a pickle.

    Args:
        root: The result of `unpickler.unpickle`.
        builders: Functions by the path of the records that they replace; they take the arguments of the call.
        budget: Bound on their copies.

    Raises:
        ValueError: If the arguments do not fit, a bound is exceeded, or a container contains itself.
    """
    rebuilder = _Rebuilder(builders, budget)
    value = rebuilder.visit(root, 1).value
    for found in rebuilder.placeholders:  # grows during the visits, since they may contain one another
        for name in ("args", "kwargs", "state", "elements", "entries"):
            setattr(found, name, rebuilder.visit(getattr(found, name), 1).value)
    return value


class _Rebuilt(NamedTuple):
    value: Any
    size: int = 1
    height: int = 1


class _Rebuilder:
    def __init__(self, builders: Mapping[str, Callable[..., Any]], budget: Budget) -> None:
        self.builders, self.budget = builders, budget
        self.placeholders: list[Placeholder] = []
        self.rebuilt: dict[int, _Rebuilt | None] = {}  # by the id of the original, None while it is being visited
        self.originals: list[Any] = []  # kept alive, so that no other object takes their ids

    def visit(self, value: Any, depth: int) -> _Rebuilt:
        if not isinstance(value, _VISITED):
            return _Rebuilt(value)
        if depth > _DEEPEST:
            raise ValueError(f"expected containers nested at most {_DEEPEST} deep, got more")
        if id(value) not in self.rebuilt:
            self.rebuilt[id(value)] = None
            self.originals.append(value)
            self.rebuilt[id(value)] = self._rebuild(value, depth)
        known = self.rebuilt[id(value)]
        if known is None:
            raise ValueError("expected containers that do not contain themselves, got one that does")
        return known

    def _rebuild(self, value: Any, depth: int) -> _Rebuilt:
        if isinstance(value, type):
            path: str = value.path  # type: ignore[attr-defined]
            return _Rebuilt(_NAMES[path] if path in _NAMES else Placeholder(path))
        if isinstance(value, Record) and value.path not in self.builders:
            found = Placeholder(value.path, True, value.args, value.kwargs, value.state, value.elements, value.entries)
            self.placeholders.append(found)
            return _Rebuilt(found)
        if isinstance(value, Record):
            state = value.state if value.path in _STATEFUL else None  # attributes of a tensor or dict are ignored
            groups = (value.args, value.elements or None, value.entries or None, state)
            children = [self.visit(group, depth + 1) for group in groups]
            made = self._build(value, *(child.value for child in children))
        else:
            parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
            children = [self.visit(part, depth + 1) for part in parts]
            made = self._make_container(value, children)
        if not isinstance(made, _CONTAINERS):
            return _Rebuilt(made)
        size = 1 + sum(child.size for child in children)
        height = 1 + max((child.height for child in children), default=0)
        if size > _MOST_VALUES or height > _DEEPEST:
            raise ValueError(f"expected at most {_MOST_VALUES} values, {_DEEPEST} deep, got {size}, {height} deep")
        return _Rebuilt(made, size, height)

    def _build(self, record: Record, args: Any, elements: Any, entries: Any, state: Any) -> Any:
        self.budget.spend([*args, elements, entries, *(state if isinstance(state, tuple) else ())])
        try:
            if record.kwargs:
                raise ValueError(f"expected no keywords, got {list(record.kwargs)[:5]}")
            if record.path in _HASHING and args:
                self.budget.count_keys(_list_hashed(args[-1]))
            made = self.builders[record.path](*args, **({"state": state} if record.path in _STATEFUL else {}))
            if elements:
                _expect(list, made).extend(elements)
            if entries:
                _expect(dict, made).update(entries)
        except (TypeError, ValueError, RuntimeError, OverflowError, AttributeError) as error:
            raise ValueError(f"damaged pickle: {record.path} cannot be rebuilt: {error}") from error
        return made

    def _make_container(self, original: Any, children: Sequence[_Rebuilt]) -> Any:
        """Makes a container of the original's type from other values."""
        values = [child.value for child in children]
        if isinstance(original, list | tuple):
            return type(original)(values)
        num = len(original)
        if any(child.size > MOST_IN_A_KEY for child in children[:num]):
            raise ValueError(f"expected a key of at most {MOST_IN_A_KEY} values, got a larger tuple or frozenset")
        self.budget.count_keys(values[:num])
        try:
            return dict(zip(values[:num], values[num:])) if isinstance(original, dict) else type(original)(values)
        except TypeError as error:
            raise ValueError(f"expected plain values as keys: {error}") from error


def _list_hashed(items: Any) -> Iterable[Any]:
    """Lists what a mapping or a set made of `items` hashes: the first of each pair, or each item."""
    if isinstance(items, dict):
        return items
    rows = items if isinstance(items, list | tuple | set | frozenset) else ()
    return (row[0] if isinstance(row, list | tuple) and len(row) == 2 else row for row in rows)


def _expect(kind: type[T], value: Any) -> T:
    if not isinstance(value, kind):
        raise ValueError(f"expected a {kind.__name__}, got {type(value).__name__}")
    return value


def _build_tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
    """`torch._utils._rebuild_tensor` and its second version; later arguments are ignored."""
    values = _expect(Tensor, storage)
    (first,) = _check_whole("offset", (offset,))
    sizes, strides = _check_whole("size", size), _check_whole("stride", stride)
    if values.ndim != 1 or len(sizes) != len(strides):
        raise ValueError(f"expected a storage and a stride for each size, got {sizes} and {strides}")
    num = math.prod(sizes)
    last = first + sum((one - 1) * step for one, step in zip(sizes, strides))
    if num and last >= len(values) or num > max(len(values), _MOST_EXPANDED):
        raise ValueError(f"expected a view of {len(values)} values, got size {sizes}, stride {strides} from {first}")
    return values.as_strided(sizes, strides, values.storage_offset() + (first if num else 0))


def _build_typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor:
    return _build_tensor(_expect(Tensor, storage).view(_expect(torch.dtype, dtype)), offset, size, stride)


def _build_subclass(function: Any, kind: Any, args: Any, *rest: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: the plain tensor of a subclass, if it is known."""
    if isinstance(function, Placeholder) and function.name in _TENSORS and isinstance(args, tuple):
        return _TENSORS[function.name](*args)
    return Placeholder("torch._tensor._rebuild_from_type_v2", True, (function, kind, args, *rest))


def _build_parameter(data: Any, *rest: Any) -> Any:
    return data if isinstance(data, Placeholder) else _expect(Tensor, data)


def _check_whole(what: str, items: Any) -> tuple[int, ...]:
    if not isinstance(items, tuple | list) or not all(type(item) is int and 0 <= item < 2**63 for item in items):
        raise ValueError(f"expected {what} of whole numbers from 0 on, got {items!r:.60}")
    return tuple(items)


def _build_dtype(name: Any, *rest: Any, state: Any) -> np.dtype[Any] | Placeholder:
    """`numpy.dtype(name, align, copy)`, whose state has the byte order; a placeholder unless it is of numbers."""
    if not (len(_expect(str, name)) <= 3 and name[:1] in "biufc" and name[1:].isdigit()):
        return Placeholder("numpy.dtype", True, (name, *rest), state=state)
    dtype: np.dtype[Any] = np.dtype(name)
    if state is None:
        return dtype
    if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
        raise ValueError(f"expected a dtype's byte order, got {state!r:.60}")
    return dtype.newbyteorder(state[1])


def _build_array_from_state(*_: Any, state: Any) -> np.ndarray[Any, Any] | Placeholder:
    """`numpy.core.multiarray._reconstruct(class, shape, code)`, whose state holds everything."""
    if not isinstance(state, tuple) or len(state) != 5:
        raise ValueError(f"expected an array's state, got {state!r:.60}")
    _, shape, dtype, fortran, data = state
    return _build_array(data, dtype, shape, "F" if fortran else "C")


def _build_array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any] | Placeholder:
    """Builds an array from its bytes; a placeholder unless it is of numbers."""
    if isinstance(dtype, Placeholder):
        return Placeholder("numpy.ndarray", True, (data, dtype, shape, order))
    if not isinstance(dtype, np.dtype) or order not in ("C", "F"):
        raise ValueError(f"expected a dtype and an order of C or F, got {dtype!r:.40} and {order!r:.10}")
    sizes = _check_whole("shape", shape)
    content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data  # Python 2's bytes
    num = dtype.itemsize * math.prod(sizes)
    if not isinstance(content, bytes | bytearray) or len(content) != num:
        got = f"{len(content)} bytes" if isinstance(content, bytes | bytearray) else type(data).__name__
        raise ValueError(f"expected {num} bytes for {sizes} of {dtype}, got {got}")
    return np.frombuffer(bytearray(content), dtype).reshape(sizes, order=order)


def _build_scalar(dtype: Any, data: Any) -> Any:
    value = _build_array(data, dtype, (), "C")
    return value if isinstance(value, Placeholder) else value.item()


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """`_codecs.encode`, with which older protocols write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError(f"expected text as latin1, got {type(text).__name__} as {encoding!r:.20}")
    return text.encode(encoding)


def _build_bytearray(data: Any = b"", *encoding: Any) -> bytearray:
    return bytearray(_encode(data, *encoding) if isinstance(data, str) else _expect(bytes, data))


def _build_complex(real: Any, imag: Any = 0.0) -> complex:
    if not isinstance(real, int | float) or not isinstance(imag, int | float):
        raise ValueError("expected two numbers")
    return complex(real, imag)


def _build_mapping(items: Any = ()) -> dict[Any, Any]:
    if isinstance(items, dict):
        return dict(items)
    if not isinstance(items, list | tuple) or any(not isinstance(row, list | tuple) or len(row) != 2 for row in items):
        raise ValueError(f"expected pairs, got {type(items).__name__}")
    _check_plain(key for key, _ in items)
    return dict(items)


def _make_builder(kind: type) -> Callable[..., Any]:
    def build(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple | set | frozenset):
            raise ValueError(f"expected a container, got {type(items).__name__}")
        if kind in (set, frozenset):
            _check_plain(items)
        return kind(items)

    return build


def _check_plain(keys: Iterable[Any]) -> None:
    if not all(isinstance(key, str | bytes | int | float | None | Placeholder) for key in keys):
        raise ValueError("expected plain values as keys or in a set")


_TENSORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _build_tensor,
    "torch._utils._rebuild_tensor_v2": _build_tensor,
    "torch._utils._rebuild_tensor_v3": _build_typed_tensor,
}
_STATEFUL: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _build_dtype,
    "numpy.core.multiarray._reconstruct": _build_array_from_state,
    "numpy._core.multiarray._reconstruct": _build_array_from_state,
}
"""Calls on whose result a state is set; it is passed as `state`, or None."""

BUILDERS: dict[str, Callable[..., Any]] = {
    **_TENSORS,
    **_STATEFUL,
    **{f"builtins.{kind.__name__}": _make_builder(kind) for kind in (list, tuple, set, frozenset)},
    "builtins.dict": _build_mapping,
    "builtins.bytearray": _build_bytearray,
    "builtins.complex": _build_complex,
    "collections.OrderedDict": _build_mapping,
    "collections.defaultdict": lambda factory=None, *items: _build_mapping(*items),
    "_codecs.encode": _encode,
    "torch.Size": lambda items: torch.Size(_check_whole("size", items)),
    "torch._utils._rebuild_parameter": _build_parameter,
    "torch._utils._rebuild_parameter_with_state": _build_parameter,
    "torch._tensor._rebuild_from_type_v2": _build_subclass,
    "numpy.core.multiarray.scalar": _build_scalar,
    "numpy._core.multiarray.scalar": _build_scalar,
    "numpy.core.numeric._frombuffer": _build_array,
    "numpy._core.numeric._frombuffer": _build_array,
}
"""The functions that replace the calls in a pickle, by path."""

_HASHING = {
    "builtins.set",
    "builtins.frozenset",
    "builtins.dict",
    "collections.OrderedDict",
    "collections.defaultdict",
}

_DTYPES = {f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGES = {
    **{"Double": torch.float64, "Float": torch.float32, "Half": torch.float16, "BFloat16": torch.bfloat16},
    **{"Long": torch.int64, "Int": torch.int32, "Short": torch.int16, "Char": torch.int8, "Byte": torch.uint8},
    **{"Bool": torch.bool, "ComplexFloat": torch.complex64, "ComplexDouble": torch.complex128},
    **{"Untyped": torch.uint8, "_Untyped": torch.uint8},
}
_NAMES: dict[str, Any] = {
    **_DTYPES,
    **{
        f"{module}.{name}Storage": StorageType(dtype)
        for name, dtype in _STORAGES.items()
        for module in ("torch", "torch.cuda", "torch.storage")
    },
}
