"""A folder of pictures, of any number, formats and sizes, which are decoded when they are read.

    x = resize(square(upright(picture))) / 127.5 - 1

The largest square (central, or anywhere along the longer side) is cut out and resized with an antialiased bicubic
filter. This gives what resizing the shorter side and then cropping would, without computing pixels that are discarded.
Transparent pixels are placed on white. `modkit.data.listing` finds the pictures, their splits and their classes.

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from modkit.data.file_hashes import hash_files
from modkit.data.listing import find_classes, list_pictures
from modkit.data.moments import measure_std
from modkit.data.picture import DAMAGE, open_picture
from modkit.data.splits import check_split, hash_contents
from modkit.rng import Rng
from modkit.types import Batch, TensorType

__all__ = ["ImageFolder"]

_MEASURED = 256  # of pictures whose deviation is measured: decoding one takes milliseconds


class ImageFolder:
    """The pictures in a folder, `b channels size size` in [-1, 1], with the field `labels` (`b`) if there are classes.

    Args:
        root: The folder. Pictures may be at any depth; hidden files and folders are ignored. If it has both subfolders
            `train` and `test`, they are the splits. Subfolders are the classes if there are two or more and every
            picture is in one of them.
        size: Height and width.
        channels: 3 for colour, 1 for grey.
        flip: Whether to mirror half of the training pictures, at random.
        crop: Which square of a training picture is kept; test pictures keep the central one.
        test: Share of the pictures in the test split, in [0, 1), if the folder does not define splits.

    Raises:
        ValueError: If there is no picture to train on, or a setting is out of range.

    Examples:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> for index in range(2):
        ...     Image.new("RGB", (6, 4), "white").save(f"{root}/{index}.png")
        >>> data = ImageFolder(root=root, size=4, test=0.0)
        >>> data.splits, data.read("train", [0], Rng(0)).tensor.mean()
        ({'train': 2, 'test': 0}, tensor(1.))
    """

    def __init__(
        self,
        *,
        root: str,
        size: int = 64,
        channels: Literal[1, 3] = 3,
        flip: bool = False,
        crop: Literal["center", "random"] = "center",
        test: float = 0.1,
    ) -> None:
        if size < 1 or channels not in (1, 3) or crop not in ("center", "random") or not 0 <= test < 1:
            raise ValueError(
                "ImageFolder expects size >= 1, channels 1 or 3, crop center or random and test in [0, 1), "
                f"got {size}, {channels}, {crop!r} and {test}"
            )
        self._listings = list_pictures(root, test)
        if not self._listings["train"]:
            raise ValueError(f"ImageFolder expects training pictures in {root!r}, got none")
        classes = find_classes(list(self._listings.values()))
        self._labels = {split: listing.find_labels(classes) for split, listing in self._listings.items() if classes}
        self._size, self._channels, self._flip, self._crop = size, channels, flip, crop

        self.fields = {"labels": TensorType((), classes=len(classes))} if classes else {}
        self.classes = tuple(map(os.fsdecode, classes))
        self.splits = {split: len(listing) for split, listing in self._listings.items()}
        self.levels: int | None = 256

    @cached_property
    def x(self) -> TensorType:
        """The type of a picture, whose deviation is measured over 256 of them when it is first asked for."""
        shape = (self._channels, self._size, self._size)
        return TensorType(shape, range=(-1.0, 1.0), std=measure_std(self, _MEASURED))

    @cached_property
    def key(self) -> str:
        """Hash of relative paths, the files' contents and settings; a file that has not changed is read only once."""
        files = hashlib.blake2b(digest_size=16)
        for split, listing in self._listings.items():
            for name, digest in zip(listing, hash_files(listing.folder, listing), strict=True):
                files.update(f"{split} {len(name)} ".encode() + name + digest)
        return hash_contents(
            "image-folder", files.digest(), self._size, self._channels, self._flip, self._crop, *self.classes
        )

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the pictures at `indices`; in the split `train`, crops and flips are drawn from `rng.at(index)`.

        Raises:
            ValueError: If there is no such split, or a picture is damaged or missing.
        """
        check_split(self, split)
        listing, augmented = self._listings[split], split == "train"
        pixels = np.empty((len(indices), self._size, self._size, self._channels), dtype=np.uint8)
        for row, index in enumerate(indices):
            pixels[row] = self._read_pixels(listing.get_path(index), rng.at(index) if augmented else None)
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float().div_(127.5).sub_(1)
        if not self.classes:
            return Batch(x, {})
        return Batch(x, {"labels": self._labels[split][torch.as_tensor(indices, dtype=torch.long)]})

    def _read_pixels(self, path: str, rng: Rng | None) -> NDArray[np.uint8]:
        offset, mirrored = 0.5, False
        if rng is not None and self._crop == "random":
            offset = float(rng.uniform("crop", torch.empty(1)))
        if rng is not None and self._flip:
            mirrored = bool(rng.uniform("flip", torch.empty(1)) < 0.5)
        try:
            with open_picture(path) as image:
                image.draft(None, (2 * self._size, 2 * self._size))  # a JPEG decoder shrinks at almost no cost
                upright = ImageOps.exif_transpose(image)
                square = _crop_square(_convert(upright, "RGB" if self._channels == 3 else "L"), self._size, offset)
        except DAMAGE as error:
            raise ValueError(f"ImageFolder expects a whole picture in {path!r}, got {error!r}") from error
        pixels = np.asarray(square).reshape(self._size, self._size, self._channels)
        return pixels[:, ::-1] if mirrored else pixels


def _convert(image: Image.Image, mode: str) -> Image.Image:
    """Converts a picture to 8 bits per channel, with transparent pixels on white."""
    if image.mode == "F":
        raise ValueError("floating-point pixels")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert(mode)


def _crop_square(image: Image.Image, size: int, offset: float) -> Image.Image:
    """Cuts out the largest square, at `offset` in [0, 1) along the longer side, and resizes it to `size`."""
    width, height = image.size
    side = min(width, height)
    left, top = int((width - side + 1) * offset), int((height - side + 1) * offset)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
