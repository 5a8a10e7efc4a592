"""Tensors in a safetensors file, which is written from one region of memory and read in blocks, hashed on the way.

    8 bytes     length of the header, little-endian
    header      {key: {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}}, JSON
    data        the tensors one after the other, those of wider types first, so that each is aligned

A tensor and its bytes in the file are never held twice. Where a file is mapped, they are not held at all: what is read
of a tensor is read from the file, whose pages all processes of a machine share.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modkit.runs.files import BLOCK, Digest

__all__ = ["DTYPES", "Layout", "plan_layout", "read_tensors", "view_bytes"]

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64", torch.bool: "BOOL",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
}  # fmt: skip
"""The name of each type of values that a file can hold."""

_BY_NAME = {name: dtype for dtype, name in DTYPES.items()}
_LONGEST = 2**28  # bytes of a header


class Layout(NamedTuple):
    """Where tensors lie in a file.

    Args:
        header: The file's first bytes.
        places: Begin and end of each tensor in the file, by key.
        size: Size of the file in bytes.
    """

    header: bytes
    places: dict[str, tuple[int, int]]
    size: int


def plan_layout(tensors: Mapping[str, Tensor]) -> Layout:
    """Arranges tensors in a file.

    Examples:
        >>> plan_layout({"w": torch.ones(2), "n": torch.tensor(3)}).places
        {'n': (120, 128), 'w': (128, 136)}
    """
    rows, places, end = {}, {}, 0
    for key in sorted(tensors, key=lambda key: (-tensors[key].element_size(), key)):
        value = tensors[key]
        begin, end = end, end + value.numel() * value.element_size()
        rows[key] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
        places[key] = begin, end
    text = json.dumps(rows, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    first = 8 + len(text)
    places = {key: (first + begin, first + end) for key, (begin, end) in places.items()}
    return Layout(len(text).to_bytes(8, "little") + text, places, first + end)


def view_bytes(data: Tensor) -> memoryview:
    """Views the memory of a tensor of bytes."""
    return memoryview(data.numpy())  # type: ignore[arg-type]


def read_tensors(file: BinaryIO, size: int, *, mapped: bool = False) -> tuple[dict[str, Tensor], Digest]:
    """Reads the tensors of a file, and what it hashes to, which is for the caller to compare.

    Args:
        file: The file, at its begin.
        size: Its size in bytes.
        mapped: Whether tensors stay in the file, which must then stay as it is.

    Raises:
        ValueError: If it is not a safetensors file.
    """
    sha256 = hashlib.sha256()
    head = file.read(8)
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > min(size - 8, _LONGEST):
        raise ValueError(f"a header of {length} bytes does not fit into a file of {size}")
    header = file.read(length)
    sha256.update(head + header)
    left = size - 8 - length
    data = torch.empty(min(left, BLOCK) if mapped else left, dtype=torch.uint8)
    memory, begin = view_bytes(data), 0
    while left:  # an error of the disk is one of reading, but would kill who looks at what is mapped
        num = file.readinto(memory[begin : begin + min(left, BLOCK)])  # type: ignore[attr-defined]
        if not num:
            raise ValueError(f"it ends {left} bytes early")
        sha256.update(memory[begin : begin + num])
        left, begin = left - num, 0 if mapped else begin + num
    if mapped and size > 8 + length:
        data = torch.from_numpy(np.memmap(file, np.uint8, "c", 8 + length))  # what is written is this process's own
    return _view_tensors(header, data), Digest(size, sha256.hexdigest())


def _view_tensors(header: bytes, data: Tensor) -> dict[str, Tensor]:
    """Views the tensors that a header describes; they must fill the data without gaps."""
    tensors, filled = {}, 0
    try:
        rows = json.loads(header)
        rows.pop("__metadata__", None)
        for key, row in sorted(rows.items(), key=lambda item: item[1]["data_offsets"]):
            (begin, end), shape, dtype = row["data_offsets"], row["shape"], _BY_NAME[row["dtype"]]
            if any(type(number) is not int or number < 0 for number in (begin, end, *shape)):
                raise ValueError(f"{key} lies at {begin}:{end} with shape {shape}")
            if begin != filled or end > len(data) or end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{key}, {row['dtype']} of shape {shape}, cannot lie at {begin}:{end}")
            part, filled = data[begin:end], end
            tensors[key] = (part.clone() if begin % dtype.itemsize else part).view(dtype).view(shape)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"its header is damaged: {error!r}") from error
    if filled != len(data):
        raise ValueError(f"its tensors have {filled} bytes of {len(data)}")
    return {key: tensors[key] for key in rows}
