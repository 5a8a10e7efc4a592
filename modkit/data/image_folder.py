"""A folder of pictures, of any number, formats and sizes, which are decoded when they are read.

    x = resize(square(upright(picture))) / 127.5 - 1

The largest square (central, or anywhere along the longer side) is cut out and resized with an antialiased bicubic
filter. This gives what resizing the shorter side and then cropping would, without computing pixels that are discarded.
`modkit.data.listing` finds the pictures, their splits and their classes, `modkit.data.scan` the damaged ones, and
`modkit.data.channels` converts modes and transparency.

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from modkit.data.channels import convert_picture, parse_colour
from modkit.data.listing import find_classes, list_pictures
from modkit.data.moments import measure_std
from modkit.data.picture import DAMAGE, open_picture
from modkit.data.scan import Scan, hash_pictures, scan_pictures
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
        channels: 3 for colour, 1 for grey, 4 for colour and opacity; None is what the pictures have, 1 or 3, if they
            are all grey or all colour.
        flip: Whether to mirror half of the training pictures, at random.
        crop: Which square of a training picture is kept; test pictures keep the central one.
        test: Share of the pictures in the test split, in [0, 1), if the folder does not define splits.
        background: The colour that transparent pixels are laid on, such as `white` or `#ff8000`; with 4 channels, the
            colour of what is fully transparent.
        damaged: Largest share of the pictures that may be damaged, in [0, 1); they are counted, named and skipped. The
            first time, all pictures are decoded to find them. None decodes none in advance: a damaged picture is then
            an error when it is read.

    Raises:
        ValueError: If there is no picture to train on, too many are damaged, or a setting is out of range.
        OSError: If a file cannot be opened or read.

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
        channels: Literal[1, 3, 4] | None = 3,
        flip: bool = False,
        crop: Literal["center", "random"] = "center",
        test: float = 0.1,
        background: str = "white",
        damaged: float | None = 0.01,
    ) -> None:
        if size < 1 or channels not in (1, 3, 4, None) or crop not in ("center", "random") or not 0 <= test < 1:
            raise ValueError(
                "ImageFolder expects size >= 1, channels 1, 3, 4 or none, crop center or random and test in [0, 1), "
                f"got {size}, {channels}, {crop!r} and {test}"
            )
        if damaged is not None and not 0 <= damaged < 1:
            raise ValueError(f"ImageFolder expects damaged in [0, 1) or none, got {damaged}")
        self._background = parse_colour(background)
        self._listings, self._scan = list_pictures(root, test), None
        if damaged is not None:
            self._scan = scan_pictures(self._listings, root, damaged)
            self._listings = self._scan.listings
        if not self._listings["train"]:
            raise ValueError(f"ImageFolder expects training pictures in {root!r}, got none")
        classes = find_classes(list(self._listings.values()))
        self._labels = {split: listing.find_labels(classes) for split, listing in self._listings.items() if classes}
        self._size, self._flip, self._crop = size, flip, crop
        self._channels = _choose_channels(self._scan, root) if channels is None else channels

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
        """Hash of relative paths, the files' contents, which of them are skipped, and settings."""
        files = self._scan.digest if self._scan else hash_pictures(self._listings)
        skipped = self._scan.skipped if self._scan else ()
        settings = (self._size, self._channels, repr(self._background), self._flip, self._crop)
        return hash_contents("image-folder", files, *settings, *self.classes, *skipped)

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
                square = _crop_square(convert_picture(upright, self._channels, self._background), self._size, offset)
        except DAMAGE as error:
            raise ValueError(f"ImageFolder expects a whole picture in {path!r}, got {error!r}") from error
        pixels = np.asarray(square).reshape(self._size, self._size, self._channels)
        if self._channels == 4:  # what is fully transparent has any colour in a file, and none after resizing
            pixels = np.where(pixels[..., 3:] == 0, np.array([*self._background, 0], dtype=np.uint8), pixels)
        return pixels[:, ::-1] if mirrored else pixels


def _choose_channels(scan: Scan | None, root: str) -> int:
    """Chooses the channels that all pictures have, without transparency."""
    if scan is None:
        raise ValueError("ImageFolder expects channels 1, 3 or 4 with damaged: null, since no picture is looked at")
    grey = scan.counts[1] + scan.counts[2]
    colour = scan.counts[3] + scan.counts[4]
    if grey and colour:
        raise ValueError(
            f"ImageFolder expects channels 1, 3 or 4 for the mixture in {root!r}, of {grey:,} grey and {colour:,} "
            "colour pictures, got none"
        )
    return 1 if grey else 3


def _crop_square(image: Image.Image, size: int, offset: float) -> Image.Image:
    """Cuts out the largest square, at `offset` in [0, 1) along the longer side, and resizes it to `size`."""
    width, height = image.size
    side = min(width, height)
    left, top = int((width - side + 1) * offset), int((height - side + 1) * offset)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
