"""The square of a picture: its largest square, central or anywhere along the longer side, at a given size.

    pixels = resize(square(upright(picture)))        an antialiased bicubic filter

This gives what resizing the shorter side and then cropping would, without computing pixels that are discarded.

Shape letters: h w spatial, c channels.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from modkit.data.channels import Colour, convert_picture
from modkit.rng import Rng

__all__ = ["Square"]


class Square(NamedTuple):
    """How the square of a picture is cut out.

    Args:
        size: Height and width.
        channels: 3 for colour, 1 for grey, 4 for colour and opacity.
        background: The colour that transparency is laid on; with 4 channels, that of what is fully transparent.
        flip: Whether half of the pictures that are augmented are mirrored.
        crop: Which square of a picture that is augmented is kept; others keep the central one.

    Examples:
        >>> square = Square(size=2, channels=1, background=(0, 0, 0))
        >>> square.cut(Image.new("RGB", (6, 4), "white"))[..., 0]
        array([[255, 255],
               [255, 255]], dtype=uint8)
    """

    size: int
    channels: int
    background: Colour
    flip: bool = False
    crop: Literal["center", "random"] = "center"

    def cut(self, image: Image.Image, rng: Rng | None = None) -> NDArray[np.uint8]:
        """Decodes a picture and cuts out its square, `h w c`; it is augmented if an rng is given.

        Raises:
            DAMAGE: If the picture is damaged, see `modkit.data.picture`.
        """
        offset, mirrored = 0.5, False
        if rng is not None and self.crop == "random":
            offset = float(rng.uniform("crop", torch.empty(1)))
        if rng is not None and self.flip:
            mirrored = bool(rng.uniform("flip", torch.empty(1)) < 0.5)
        image.draft(None, (2 * self.size, 2 * self.size))  # a JPEG decoder shrinks at almost no cost
        upright = convert_picture(ImageOps.exif_transpose(image), self.channels, self.background)
        pixels = np.asarray(self._resize(upright, offset)).reshape(self.size, self.size, self.channels)
        if self.channels == 4:  # what is fully transparent has any colour in a file, and none after resizing
            pixels = np.where(pixels[..., 3:] == 0, np.array([*self.background, 0], dtype=np.uint8), pixels)
        return pixels[:, ::-1] if mirrored else pixels

    def _resize(self, image: Image.Image, offset: float) -> Image.Image:
        """Cuts out the largest square, at `offset` in [0, 1) along the longer side, and resizes it."""
        width, height = image.size
        side = min(width, height)
        left, top = int((width - side + 1) * offset), int((height - side + 1) * offset)
        box = (left, top, left + side, top + side)
        return image.resize((self.size, self.size), Image.Resampling.BICUBIC, box=box)
