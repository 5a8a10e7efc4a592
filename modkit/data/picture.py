"""A picture file, opened without trusting it: whatever its name says, only the formats of this table are decoded.

Pillow would choose the decoder only by the content, and some decoders start a program: PostScript, Ghostscript.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from modkit.runs.files import open_regular

__all__ = ["DAMAGE", "FORMATS", "open_picture", "read_picture"]

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""The formats that are read, by Pillow's names; PPM includes PGM."""

DAMAGE = (  # SyntaxError is what Pillow raises for a broken PNG chunk
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""What opening or decoding a damaged or hostile picture may raise."""


@contextmanager
def open_picture(path: str | PathLike[str]) -> Iterator[Image.Image]:
    """Opens a picture in one of `FORMATS`; its pixels are decoded when they are first used.

    Raises:
        OSError: If it cannot be opened, or is no picture in one of `FORMATS`.
        ValueError: If it is not a regular file.

    Examples:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
        ...     Image.new("L", (3, 2)).save(file.name)
        ...     with open_picture(file.name) as picture:
        ...         picture.size
        (3, 2)
    """
    with open_regular(path) as file, read_picture(file) as image:
        yield image


@contextmanager
def read_picture(file: BinaryIO) -> Iterator[Image.Image]:
    """Reads a picture in one of `FORMATS` from an open file; its pixels are decoded when they are first used.

    Raises:
        OSError: If it is no picture in one of `FORMATS`.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise OSError(f"no picture of the formats {', '.join(FORMATS)}") from error
    with image:
        yield image
