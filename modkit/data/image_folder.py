"""A folder of pictures: `modkit.data.listing` finds them, their splits and their classes."""

from __future__ import annotations

from typing import Annotated

from modkit.data.listing import list_pictures
from modkit.data.pictures import Background, Channels, Crop, Damaged, Flip, Pictures, Size
from modkit.types import Range, checked

__all__ = ["ImageFolder"]


@checked
class ImageFolder(Pictures):
    """The pictures in a folder, `b channels size size` in [-1, 1], with the field `labels` (`b`) if there are classes.

    The largest square of a picture is resized to `size`.

    Args:
        root: The folder. Pictures may be at any depth; hidden files and folders are ignored. If it has subfolders
            `train` (or `training`) and `test`, they are the splits, in any case; where there is no `test`, the first of
            `testing`, `val`, `validation`, `valid`, `eval`, `evaluation` and `dev` is in its place. Other names that
            look like several splits are refused. Subfolders are the classes if there are two or more and every picture
            is in one of them.
        test: Share of the pictures in the test split, in [0, 1), if the folder does not define splits.

    Raises:
        ValueError: If there is no picture to train on, folders look like splits that cannot be told for certain as well
            many pictures are damaged, or a setting is out of range.
        OSError: If a file cannot be opened or read.

    Examples:
        >>> import tempfile
        >>> from PIL import Image
        >>> from modkit import Rng
        >>> root = tempfile.mkdtemp()
        >>> for index in range(2):
        ...     Image.new("RGB", (6, 4), "white").save(f"{root}/{index}.png")
        >>> data = ImageFolder(root=root, size=4, test=0.0)
        >>> batch = data.read("train", [0], Rng(0))
        >>> data.splits, batch.tensor.dtype, data.finish(batch).tensor.mean()
        ({'train': 2, 'test': 0}, torch.uint8, tensor(1.))
    """

    kind = "image-folder"

    def __init__(
        self,
        *,
        root: str,
        size: Size = 64,
        channels: Channels = 3,
        flip: Flip = False,
        crop: Crop = "center",
        test: Annotated[float, Range(0, below=1)] = 0.1,
        background: Background = "white",
        damaged: Damaged = 0.01,
    ) -> None:
        super().__init__(
            lambda: list_pictures(root, test),
            root=root,
            size=size,
            channels=channels,
            flip=flip,
            crop=crop,
            test=test,
            background=background,
            damaged=damaged,
        )
