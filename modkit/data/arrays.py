"""Array files of numpy, read without trusting them: nothing is unpickled, and what a header claims must be there.

A `.npy` file is mapped into memory, so that its batches are read when they are used. A `.npz` file is a ZIP archive of
`mu` (d), `sigma` (d d) and perhaps `count` and `origin` (a text), the statistics of features.

Shape letters: d features.
"""

from __future__ import annotations

import lzma
import math
import os
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from modkit.errors import shorten
from modkit.runs.files import open_regular

__all__ = ["map_array", "read_statistics"]

_HEADER = 4096  # bytes of a header, which is parsed as a Python literal; the usual size is 118
_TEXT = 2**14  # bytes of a text, four a letter
_DIM = 2**14  # features whose covariance is read, 2 GiB; Inception has 2,048
_READERS: dict[tuple[int, int], tuple[int, Callable[..., Any]]] = {  # with the bytes that state a header's length
    (1, 0): (2, npy.read_array_header_1_0),
    (2, 0): (4, npy.read_array_header_2_0),
}
_PARSING = (
    *(ValueError, TypeError, MemoryError, RecursionError, OverflowError),
    *(SyntaxError, tokenize.TokenError),
)
_UNZIPPING = (
    *(OSError, KeyError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError),
)


def map_array(path: Path) -> NDArray[Any]:
    """Maps the array in a `.npy` file into memory, read-only.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not a regular file, holds no array or Python objects, or is shorter than its header claims.
    """
    with open_regular(path) as file:
        shape, fortran, dtype = _read_header(file)
        size, there = math.prod(shape) * dtype.itemsize, os.fstat(file.fileno()).st_size - file.tell()
        if size > there:
            raise ValueError(f"its header claims {size} bytes, {there} are there")
        if not size:
            return np.empty(shape, dtype)
        return np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")


def read_statistics(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], int | None, str | None]:
    """Reads the mean, the covariance and, if they are there, the count and the origin of a `.npz` file.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not a regular file or no such archive, or an array is too large or has another shape.
    """
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                mean = _read_member(archive, "mu", lambda shape: len(shape) == 1 and 0 < shape[0] <= _DIM)
                square = (len(mean), len(mean))
                covariance = _read_member(archive, "sigma", lambda shape: shape == square)
                named = "count.npy" in archive.namelist()
                count = _read_member(archive, "count", lambda shape: shape == ()) if named else None
                origin = _read_text(archive, "origin") if "origin.npy" in archive.namelist() else None
        except _UNZIPPING as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error
    if count is not None and not (np.isfinite(count) and 0 <= count < 2**63):
        raise ValueError(f"expected `count` to be a number of samples, got {count}")
    return mean, covariance, None if count is None else int(count), origin


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(file)
    if version not in _READERS:
        raise ValueError(f"expected an array file of version 1.0 or 2.0, got {'.'.join(map(str, version))}")
    width, read = _READERS[version]
    length = int.from_bytes(file.read(width), "little")
    if length > _HEADER:
        raise ValueError(f"expected a header of at most {_HEADER} bytes, got {length}")
    file.seek(-width, os.SEEK_CUR)
    try:
        shape, fortran, dtype = read(file, max_header_size=_HEADER)
    except _PARSING as error:
        raise ValueError(f"its header cannot be parsed: {shorten(str(error)) or type(error).__name__}") from error
    if any(type(length) is not int or length < 0 for length in shape):
        raise ValueError(f"its header claims the shape {shape}")
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    return shape, fortran, dtype


def _read_text(archive: zipfile.ZipFile, name: str) -> str:
    with archive.open(f"{name}.npy") as member:
        shape, _, dtype = _read_header(member)  # type: ignore[arg-type]
        if shape != () or dtype.kind != "U" or dtype.itemsize > _TEXT:
            raise ValueError(
                f"expected `{name}` to be a text of at most {_TEXT} bytes, got shape {shape} and type {dtype}"
            )
        data = member.read(dtype.itemsize)
    if len(data) < dtype.itemsize:
        raise ValueError(f"{name} claims {dtype.itemsize} bytes, {len(data)} are there")
    return str(np.frombuffer(data, dtype)[0])


def _read_member(archive: zipfile.ZipFile, name: str, fits: Callable[[tuple[int, ...]], bool]) -> NDArray[np.float64]:
    with archive.open(f"{name}.npy") as member:
        shape, fortran, dtype = _read_header(member)  # type: ignore[arg-type]
        if not fits(shape) or dtype.kind not in "fiu":
            expected = f"at most {_DIM} features, and shapes (d,), (d, d) and ()"
            raise ValueError(f"expected statistics of {expected}, got {name} of shape {shape} and type {dtype}")
        size = math.prod(shape) * dtype.itemsize
        data = member.read(size)
    if len(data) < size:
        raise ValueError(f"{name} claims {size} bytes, {len(data)} are there")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").astype(np.float64)
