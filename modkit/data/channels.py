"""The channels of a picture: pictures of any mode become 1, 3 or 4 channels of 8 bits.

    y = a x + (1 - a) background        where there is transparency, a in [0, 1], and the result has none

Grey of 16 bits is divided by 257, so that white stays white. A palette is replaced by its colours.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from PIL import Image, ImageColor

__all__ = ["Colour", "convert_picture", "count_channels", "parse_colour"]

Colour: TypeAlias = tuple[int, int, int]

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def parse_colour(text: str) -> Colour:
    """Parses a colour without transparency, such as `white`, `#ff8000` or `rgb(255, 128, 0)`.

    Raises:
        ValueError: If it is none.

    Examples:
        >>> parse_colour("#ff8000")
        (255, 128, 0)
    """
    red, green, blue, *alpha = ImageColor.getrgb(text)
    if alpha:
        raise ValueError(f"expected a colour without transparency, got {text!r}")
    return red, green, blue


def count_channels(image: Image.Image) -> int:
    """Counts the channels that a picture needs: 1 for grey and 3 for colour, and another one if it has transparency.

    Examples:
        >>> [count_channels(Image.new(mode, (1, 1))) for mode in ("1", "LA", "P", "CMYK", "RGBA")]
        [1, 2, 3, 3, 4]
    """
    grey = image.mode[0] in "1LI" and image.mode != "LAB"
    return (1 if grey else 3) + image.has_transparency_data


def convert_picture(image: Image.Image, channels: int, background: Colour) -> Image.Image:
    """Converts a picture to 1, 3 or 4 channels, of which the fourth is opacity.

    Args:
        image: A picture of any mode but floating-point numbers.
        channels: 1 for grey, 3 for colour, 4 for colour and opacity.
        background: The colour that transparency is laid on, unless it is kept as the fourth channel.

    Raises:
        ValueError: If its mode cannot be converted.

    Examples:
        >>> clear = Image.new("RGBA", (1, 1), (0, 0, 0, 0))
        >>> convert_picture(clear, 3, (255, 128, 0)).getpixel((0, 0))
        (255, 128, 0)
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        image = _narrow(image)
    if channels != 4 and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image)
    return image.convert(_MODES[channels])


def _narrow(image: Image.Image) -> Image.Image:
    """Narrows grey of 16 bits to 8, with opacity where one value of it is stated to be transparent."""
    values = np.asarray(image)
    grey = Image.fromarray((values.astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey
