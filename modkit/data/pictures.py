"""Pictures of any number, formats and sizes: found and checked when a data set is made, decoded when they are read.

`modkit.data.listing` lists them, `modkit.data.scan` finds the damaged ones, and `modkit.data.square` decodes one. They
are read as bytes and scaled on the device (`modkit.data.pixels`).

Shape letters: b batch, c channels, h w spatial, n pictures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modkit.data.channels import parse_colour
from modkit.data.labels import list_names, review_labels
from modkit.data.listing import Listing, find_classes, find_loose, find_unread
from modkit.data.moments import measure_std
from modkit.data.picture import DAMAGE, read_picture
from modkit.data.pixels import scale_pixels
from modkit.data.scan import Scan, hash_pictures, list_skipped, scan_pictures
from modkit.data.splits import check_split, hash_contents
from modkit.data.square import Square
from modkit.kinds import Fact, Finding, Note
from modkit.rng import Rng
from modkit.types import Batch, Range, TensorType

__all__ = ["Background", "Channels", "Crop", "Damaged", "Flip", "Pictures", "Size"]

Size: TypeAlias = Annotated[int, "Height and width.", Range(1)]
Channels: TypeAlias = Annotated[
    Literal[1, 3, 4] | None,
    "3 for colour, 1 for grey, 4 for colour and opacity; None is what the pictures have, 1 or 3, if they are all grey "
    "or all colour.",
]
Flip: TypeAlias = Annotated[bool, "Whether to mirror half of the training pictures, at random."]
Crop: TypeAlias = Annotated[
    Literal["center", "random"],
    "Which square of a training picture is kept; test pictures keep the central one.",
]
Background: TypeAlias = Annotated[
    str,
    "The colour that transparent pixels are laid on, such as `white` or `#ff8000`; with 4 channels, the colour of what "
    "is fully transparent.",
]
Damaged: TypeAlias = Annotated[
    float | None,
    "Largest share of the pictures that may be damaged, in [0, 1); they are counted, named and skipped. The first "
    "time, all pictures are decoded to find them. None decodes none in advance: a damaged picture is then an error when"
    " it is read.",
    Range(0, below=1),
]

_MEASURED = 256  # of pictures whose deviation is measured: decoding one takes milliseconds


class Pictures:
    """Base of data sets of pictures; a subclass lists them, and may know their labels.

    Args:
        list_files: Lists the pictures by split, `train` and `test`.
        root: The folder or archive that they are in.

    The others are those of the data sets.
    """

    kind: str  # name of the part, for the key
    _loose: tuple[list[str], list[str]] = ([], [])  # pictures beside folders, and these
    labels_apart = False  # whether labels are stored apart from paths and contents, so that the key depends on them
    levels: int | None = 256
    finish = staticmethod(scale_pixels)

    def __init__(
        self,
        list_files: Callable[[], Mapping[str, Listing]],
        *,
        root: str,
        size: Size,
        channels: Channels,
        flip: Flip,
        crop: Crop,
        test: float,
        background: Background,
        damaged: Damaged,
    ) -> None:
        name, colour = type(self).__name__, parse_colour(background)
        self._root, self._listings, self._scan = root, list_files(), None
        if damaged is not None:
            self._scan = scan_pictures(self._listings, root, damaged, name)
            self._listings = self._scan.listings
        if not self._listings["train"]:
            raise ValueError(f"{name} expects training pictures in {root!r}, got none")
        if channels is None:
            channels = _choose_channels(self._scan, root, name)
        self._square = Square(size, channels, colour, flip, crop)
        self._labels, self.classes = self._find_labels(self._listings)
        self.fields = {"labels": TensorType((), classes=len(self.classes))} if self.classes else {}
        self.class_names = {"labels": self.classes} if self.classes else {}
        self.splits = {split: len(listing) for split, listing in self._listings.items()}

    def review(self) -> Iterator[Note]:
        """States what is left out; finds pictures that leave all without labels, copies in both splits, odd labels."""
        if self._scan and (skipped := self._scan.skipped):
            yield Fact("", f"{len(skipped):,} damaged pictures are skipped: {list_skipped(skipped)}")
        if unread := find_unread(self._root, list(self._listings.values())):
            yield Fact("", f"folders that are not read: {list_names(unread)}")
        if self._scan and self._scan.copies:
            test, train = self._scan.copy
            yield Finding(
                "",
                f"{self._scan.copies:,} of {self.splits['test']:,} test pictures are also among the training pictures, "
                f"such as {test!r}, which is {train!r}: scores of held-out pictures are too good; remove one of each",
            )
        if self.classes:
            kept = {split: torch.bincount(one, minlength=len(self.classes)) for split, one in self._labels.items()}
            yield from review_labels(self.classes, kept)
        loose, folders = self._loose
        if loose:
            yield Finding(
                "",
                f"there are no labels, since {len(loose):,} of the pictures, such as {loose[0]!r}, are beside the "
                f"folders {list_names(folders)}: remove these pictures, or move each into its class",
            )

    @cached_property
    def x(self) -> TensorType:
        """The type of a picture, whose deviation is measured over 256 of them when it is first asked for."""
        shape = (self._square.channels, self._square.size, self._square.size)
        return TensorType(shape, range=(-1.0, 1.0), std=measure_std(self, _MEASURED))

    @cached_property
    def key(self) -> str:
        """Hash of relative paths, the files' contents, labels, which of them are skipped, and settings."""
        skipped = self._scan.skipped if self._scan else ()
        size, channels, background, flip, crop = self._square
        settings = (size, channels, repr(background), flip, crop)
        return hash_contents(self.kind, self._hash_files(), *settings, *self.classes, *skipped)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the pictures at `indices`, bytes `b c h w`; in the split `train`, it augments by `rng.at(index)`.

        Raises:
            ValueError: If there is no such split, or a picture is damaged or missing.
        """
        check_split(self, split)
        size, channels, *_ = self._square
        pixels = np.empty((len(indices), size, size, channels), dtype=np.uint8)
        for row, index in enumerate(indices):
            pixels[row] = self._read_pixels(self._listings[split], index, rng.at(index) if split == "train" else None)
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        return Batch(x, self.read_fields(split, indices))

    def read_fields(self, split: str, indices: Sequence[int]) -> dict[str, Tensor]:
        """Reads the labels at `indices`, if there are any, without decoding pictures.

        Raises:
            ValueError: If there is no such split.
        """
        check_split(self, split)
        if not self.classes:
            return {}
        return {"labels": self._labels[split][torch.as_tensor(indices, dtype=torch.long)]}

    def _read_pixels(self, listing: Listing, index: int, rng: Rng | None) -> NDArray[np.uint8]:
        try:
            with listing.open(index) as file, read_picture(file) as image:
                return self._square.cut(image, rng)
        except DAMAGE as error:
            path = listing.get_path(index)
            raise ValueError(f"{type(self).__name__} expects a whole picture in {path!r}, got {error!r}") from error

    def _hash_files(self) -> bytes:
        """Hashes paths, contents and, if they are stored apart from both, labels."""
        digest = self._scan.digest if self._scan else hash_pictures(self._listings, self._root)
        labels = self._labels.values() if self.labels_apart else ()
        return digest + b"".join(each.numpy().tobytes() for each in labels)

    def _find_labels(self, listings: Mapping[str, Listing]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Finds the labels of the pictures by split, `n`, and the names of the classes: those of the folders."""
        classes = find_classes(list(listings.values()))
        self._loose = ([], []) if classes else find_loose(list(listings.values()))
        labels = {split: listing.find_labels(classes) for split, listing in listings.items() if classes}
        return labels, tuple(map(os.fsdecode, classes))


def _choose_channels(scan: Scan | None, root: str, owner: str) -> Literal[1, 3]:
    """Chooses the channels that all pictures have, without transparency."""
    if scan is None:
        raise ValueError(f"{owner} expects channels 1, 3 or 4 with damaged: null, since no picture is looked at")
    grey = scan.counts[1] + scan.counts[2]
    colour = scan.counts[3] + scan.counts[4]
    if grey and colour:
        raise ValueError(
            f"{owner} expects channels 1, 3 or 4 for the mixture in {root!r}, of {grey:,} grey and {colour:,} "
            "colour pictures, got none"
        )
    return 1 if grey else 3
