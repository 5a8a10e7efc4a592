"""IDX: the file format of MNIST and related data sets, read without trusting the file.

    magic: 0 0 type dims | dims sizes, 32-bit big-endian | values in row-major order

Only unsigned bytes (type 8) are supported. A file compressed with gzip is recognised by its first bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_idx"]

_GZIP = b"\x1f\x8b"
_MAX_BYTES = 2**31


def read_idx(path: Path, num_dims: int) -> NDArray[np.uint8]:
    """Reads the array of unsigned bytes in a file, gzipped or plain; the array is writable.

    Args:
        path: The file.
        num_dims: Number of dimensions that the array must have.

    Raises:
        ValueError: If it is not an IDX file of unsigned bytes with that many dimensions, is damaged, is shorter or
            longer than its header says, or contains 2 GiB or more.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels"
        >>> _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        >>> read_idx(path, 1).tolist()
        [7, 8, 9]
    """
    head = 4 + 4 * num_dims
    with path.open("rb") as raw:
        compressed = raw.read(2) == _GZIP
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
            header = file.read(head)
            shape = _read_shape(path, header, num_dims)
            content = file.read(math.prod(shape) + 1)  # one byte more than the header says, to detect a longer file
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"read_idx expects a whole gzip file, got {path}: {error}") from error
    if len(content) != math.prod(shape):
        more = "more" if len(content) > math.prod(shape) else f"{len(content)}"
        raise ValueError(f"read_idx expects {math.prod(shape)} bytes of values in {path} (shape {shape}), got {more}")
    return np.frombuffer(bytearray(content), dtype=np.uint8).reshape(shape)


def _read_shape(path: Path, header: bytes, num_dims: int) -> tuple[int, ...]:
    magic = bytes([0, 0, 8, num_dims])
    if header[:4] != magic:
        raise ValueError(
            f"read_idx expects {path} to begin with {magic.hex(' ')}, got {header[:4].hex(' ') or 'nothing'}"
        )
    if len(header) != 4 + 4 * num_dims:
        raise ValueError(f"read_idx expects a header of {4 + 4 * num_dims} bytes in {path}, got {len(header)}")
    shape: tuple[int, ...] = struct.unpack(f">{num_dims}I", header[4:])
    if math.prod(shape) >= _MAX_BYTES:
        raise ValueError(f"read_idx expects fewer than {_MAX_BYTES} values in {path}, got shape {shape}")
    return shape
