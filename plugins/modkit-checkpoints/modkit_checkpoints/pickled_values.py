"""What a pickle's names stand for that this package rebuilds: tensors, arrays, types, and containers.

A storage is bytes; a tensor is a view of it, so tensors that shared one still do. An array's own pickle comes in two
steps, a call and a state (`Pending`). Nothing here calls what a pickle brings, but for these functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modkit_checkpoints.pickled_machine import Builder, Pending
from modkit_checkpoints.placeholder import Placeholder

__all__ = ["Storage", "StorageType", "builders"]

_MOST_EXPANDED = 2**24
"""Most values of a tensor that has more of them than its storage: one that was expanded."""


@dataclass(frozen=True)
class StorageType:
    """A class of storages; `dtype` None: bytes without a type."""

    dtype: torch.dtype | None

    @property
    def size(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize if self.dtype else 1


@dataclass(frozen=True)
class Storage:
    """Bytes, and the type of the values in them.

    Args:
        data: uint8, of one axis.
        dtype: None where a tensor says it.
    """

    data: Tensor
    dtype: torch.dtype | None


def builders(nested: Callable[[bytes], Any]) -> dict[str, Any]:
    """What stands for names.

    Args:
        nested: Reads a file of torch inside a pickle.
    """
    made = {name: Builder(name, build) for name, build in _BUILDERS.items()}
    made["torch.storage._load_from_bytes"] = Builder("torch.storage._load_from_bytes", nested)
    return {**_TYPES, **made}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any, dtype: torch.dtype | None = None) -> Tensor:
    """`torch._utils._rebuild_tensor` and its second version; what follows the strides is of no use here."""
    if not isinstance(storage, Storage):
        raise ValueError(f"expected a storage, got {type(storage).__name__}")
    sizes, strides = _whole("size", size), _whole("stride", stride)
    kind = dtype or storage.dtype
    if kind is None or len(sizes) != len(strides):
        raise ValueError(f"expected a dtype and a stride for each size, got {kind}, {sizes} and {strides}")
    (first,) = _whole("offset", (offset,))
    values = storage.data.view(kind) if len(storage.data) else storage.data.new_empty(0, dtype=kind)
    num = 1
    for one in sizes:
        num *= one
    last = first + sum((one - 1) * step for one, step in zip(sizes, strides))
    if num and last >= len(values) or num > max(len(values), _MOST_EXPANDED):
        raise ValueError(f"expected a view of {len(values)} values, got size {sizes}, stride {strides} from {first}")
    return values.as_strided(sizes, strides, first if num else 0)


def _typed_tensor(
    storage: Any, offset: Any, size: Any, stride: Any, gradient: Any, hooks: Any, dtype: Any, *rest: Any
) -> Tensor:
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"expected a dtype, got {type(dtype).__name__}")
    return _tensor(storage, offset, size, stride, dtype=dtype)


def _parameter(data: Any, *rest: Any) -> Any:
    if not isinstance(data, Tensor | Placeholder):
        raise ValueError(f"expected a tensor, got {type(data).__name__}")
    return data


def _of_a_subclass(function: Any, type: Any, args: Any, *rest: Any) -> Any:
    if isinstance(function, Builder) and function.build in (_tensor, _typed_tensor) and isinstance(args, tuple):
        return function.build(*args)
    return Placeholder("torch._tensor._rebuild_from_type_v2", True, (function, type, args, *rest))


def _size(items: Any) -> torch.Size:
    return torch.Size(_whole("size", items))


def _whole(what: str, items: Any) -> tuple[int, ...]:
    if not isinstance(items, tuple | list) or not all(type(item) is int and 0 <= item < 2**63 for item in items):
        raise ValueError(f"expected {what} of whole numbers from 0 on, got {items!r:.60}")
    return tuple(items)


class _DType(Pending):
    """A dtype of numbers, whose state tells the byte order."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.value = dtype

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise ValueError(f"expected a dtype's byte order, got {state!r:.60}")
        self.value = self.value.newbyteorder(state[1])


def _dtype(name: Any, *rest: Any) -> _DType | Placeholder:
    """`numpy.dtype(name, align, copy)`; of what is no number, a placeholder."""
    if not isinstance(name, str):
        raise ValueError(f"expected the name of a dtype, got {name!r:.40}")
    numeric = len(name) <= 3 and name[:1] in "biufc" and name[1:].isdigit()
    return _DType(np.dtype(name)) if numeric else Placeholder("numpy.dtype", True, (name, *rest))


class _Array(Pending):
    """`numpy.core.multiarray._reconstruct(class, shape, code)`, whose state is everything."""

    def __init__(self, *_: Any) -> None:
        pass

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError(f"expected an array's state, got {state!r:.60}")
        _, shape, dtype, fortran, data = state
        self.value = _array(data, dtype, shape, "F" if fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any] | Placeholder:
    """An array from its bytes; of what are no numbers, a placeholder."""
    if isinstance(dtype, Placeholder):
        return Placeholder("numpy.ndarray", True, (data, dtype, shape, order))
    if not isinstance(dtype, np.dtype) or order not in ("C", "F"):
        raise ValueError(f"expected a dtype and an order of C or F, got {dtype!r:.40} and {order!r:.10}")
    sizes, content = _whole("shape", shape), data.encode() if isinstance(data, str) else data
    num = dtype.itemsize
    for one in sizes:
        num *= one
    if not isinstance(content, bytes | bytearray) or len(content) != num:
        got = f"{len(content)} bytes" if isinstance(content, bytes | bytearray) else type(data).__name__
        raise ValueError(f"expected {num} bytes for {sizes} of {dtype}, got {got}")
    return np.frombuffer(bytearray(content), dtype).reshape(sizes, order=order)


def _scalar(dtype: Any, data: Any) -> Any:
    value = _array(data, dtype, (), "C")
    return value if isinstance(value, Placeholder) else value.item()


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """`_codecs.encode`, by which the older protocols write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise ValueError(f"expected text as latin1, got {type(text).__name__} as {encoding!r:.20}")
    return text.encode(encoding)


def _mapping(items: Any = ()) -> dict[Any, Any]:
    if isinstance(items, Mapping):
        return dict(items)
    if not isinstance(items, list | tuple) or any(not isinstance(row, list | tuple) or len(row) != 2 for row in items):
        raise ValueError(f"expected pairs, got {type(items).__name__}")
    if not all(isinstance(key, str | int | float | None) for key, _ in items):
        raise ValueError("expected keys that are plain values")
    return dict(items)


def _defaultdict(factory: Any = None, *items: Any) -> dict[Any, Any]:
    return _mapping(*items)


def _listed(items: Any = ()) -> list[Any]:
    if not isinstance(items, list | tuple | set | frozenset):
        raise ValueError(f"expected a container, got {type(items).__name__}")
    return list(items)


def _plain(items: Any) -> Sequence[Any]:
    every = _listed(items)
    if not all(isinstance(item, str | bytes | int | float | None | Placeholder) for item in every):
        raise ValueError("expected plain values in a set")
    return every


def _bytearray(data: Any = b"", *encoding: Any) -> bytearray:
    content = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(content, bytes | bytearray):
        raise ValueError(f"expected bytes, got {type(data).__name__}")
    return bytearray(content)


def _complex(real: Any, imag: Any = 0.0) -> complex:
    if not isinstance(real, int | float) or not isinstance(imag, int | float):
        raise ValueError("expected two numbers")
    return complex(real, imag)


_NUMPY: dict[str, Callable[..., Any]] = {"_reconstruct": _Array, "scalar": _scalar}
_BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _defaultdict,
    "builtins.dict": _mapping,
    "builtins.list": _listed,
    "builtins.tuple": lambda items=(): tuple(_listed(items)),
    "builtins.set": lambda items=(): set(_plain(items)),
    "builtins.frozenset": lambda items=(): frozenset(_plain(items)),
    "builtins.bytearray": _bytearray,
    "builtins.complex": _complex,
    "_codecs.encode": _encoded,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_a_subclass,
    "numpy.dtype": _dtype,
    "numpy.core.numeric._frombuffer": _array,
    "numpy._core.numeric._frombuffer": _array,
    **{f"numpy.{core}.multiarray.{name}": build for core in ("core", "_core") for name, build in _NUMPY.items()},
}

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
_NAMES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool"),
)
_TYPES: dict[str, Any] = {
    **{f"torch.{name}": getattr(torch, name) for name in _NAMES},
    **{
        f"{module}.{name}": StorageType(dtype)
        for name, dtype in _DTYPES.items()
        for module in ("torch", "torch.cuda", "torch.storage")
    },
    **{f"torch.storage.{name}": StorageType(None) for name in ("UntypedStorage", "_UntypedStorage")},
    "torch.UntypedStorage": StorageType(None),
}
