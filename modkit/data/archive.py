"""Pictures in archives, read at random: `modkit.data.members` lists them, and `modkit.data.shards` reads one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, cast

import numpy as np
import torch
from torch import Tensor

from modkit.data.listing import Listing, number_classes
from modkit.data.members import UNKNOWN
from modkit.data.pictures import Background, Channels, Crop, Damaged, Flip, Pictures, Size
from modkit.data.shards import Shards, list_members, open_shards
from modkit.types import Range, checked

__all__ = ["Archive"]


@checked
class Archive(Pictures):
    """The pictures in `.zip` or `.tar` archives, `b channels size size` in [-1, 1], and their `labels` (`b`), if any.

    The largest square of a picture is resized to `size`. Nothing is unpacked: where each picture begins is found once,
    and kept in the cache folder. Labels are those of `dataset.json` in a ZIP archive (EDM's), or of `KEY.cls` or
    `KEY.json` beside `KEY.jpg` in a tar archive (webdataset's); without any, the folders in a single archive are the
    classes if there are two or more and every picture is in one of them. In a tar archive, `KEY.mask.jpg` beside
    `KEY.jpg` or labels is passed over with a notice.

    Args:
        root: The archive, or a folder of archives (shards). Hidden members are ignored. If there are folders `train`
            and `test`, in the archive or of archives, they are the splits, with the other names that `image-folder`
            knows. Folders or archives whose names otherwise look like several splits are refused.
        test: Share of the pictures in the test split, in [0, 1), if no folders define splits.
        label: Name of the class in `KEY.json`.

    Raises:
        ValueError: If there is no archive or picture to train on, an archive is damaged or compressed as a whole,
            folders look like splits that cannot be told for certain, only some pictures have labels, these are too
            large to be classes, too many are damaged, or a setting is out of range.
        OSError: If a file cannot be opened or read.

    Examples:
        >>> import io, tempfile, zipfile
        >>> from PIL import Image
        >>> from modkit import Rng
        >>> root = f"{tempfile.mkdtemp()}/pictures.zip"
        >>> with zipfile.ZipFile(root, "w") as archive:
        ...     for index in range(2):
        ...         Image.new("RGB", (6, 4), "white").save(file := io.BytesIO(), "PNG")
        ...         archive.writestr(f"{index}.png", file.getvalue())
        ...     archive.writestr("dataset.json", '{"labels": [["0.png", 1], ["1.png", 0]]}')
        >>> data = Archive(root=root, size=4, test=0.0)
        >>> data.splits, data.read("train", [0], Rng(0)).fields["labels"]
        ({'train': 2, 'test': 0}, tensor([1]))

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), `dataset_tool.py`,
        https://github.com/NVlabs/edm
        WebDataset, https://github.com/webdataset/webdataset
    """

    kind = "archive"
    labels_apart = True

    def __init__(
        self,
        *,
        root: str,
        size: Size = 64,
        channels: Channels = 3,
        flip: Flip = False,
        crop: Crop = "center",
        test: Annotated[float, Range(0, below=1)] = 0.1,
        label: str = "label",
        background: Background = "white",
        damaged: Damaged = 0.01,
    ) -> None:
        self._shards = open_shards(root, label)
        super().__init__(
            lambda: list_members(self._shards, test),
            root=root,
            size=size,
            channels=channels,
            flip=flip,
            crop=crop,
            test=test,
            background=background,
            damaged=damaged,
        )

    def _find_labels(self, listings: Mapping[str, Listing]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        """Finds the labels in the archives or, if there is one without, in the names of its folders."""
        found = {split: cast(Shards, listing.store).find_labels(listing) for split, listing in listings.items()}
        every = np.concatenate(list(found.values()))
        if (every < 0).all():
            return super()._find_labels(listings) if self._shards.single and (every == UNKNOWN).all() else ({}, ())
        rest = [listings[split].get_path(int(row)) for split, of in found.items() for row in np.flatnonzero(of < 0)]
        if rest:
            got = f"none for {len(rest):,} of {len(every):,}, such as {rest[0]!r}"
            raise ValueError(f"Archive expects a class for every picture or for none, got {got}")
        classes = number_classes("Archive", "class", every)
        return {split: torch.from_numpy(labels) for split, labels in found.items()}, classes
