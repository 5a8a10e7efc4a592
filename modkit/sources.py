"""Sources: sets of samples to be measured, whatever they come as, read in batches that never sit in memory together.

    a tensor or array `n ...`      a `.npy` file      a folder of images      an iterable of batches
    a Model, sampled               a data set's split

Images are held against 8-bit ones: values are rounded to the 256 levels of their range unless they are wanted raw, so
that the same samples score the same from a run, from a `.npy` and from PNGs.

Shape letters: b batch, n samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modkit.data.image_folder import ImageFolder
from modkit.kinds import Data
from modkit.model import Model
from modkit.rng import Rng
from modkit.types import TensorType

__all__ = ["Samples", "Source", "from_data", "from_model", "source"]

Samples: TypeAlias = "Tensor | np.ndarray[Any, Any] | Iterable[Tensor] | str | PathLike[str] | Model"


@dataclass
class Source:
    """A set of samples.

    Args:
        name: What messages call it.
        batches: Its batches, `b ...`, in the order of their indices.
        count: How many there are, or None where only the end will tell.
        type: Type of one sample; values outside its range are refused.
        notes: What a reader of the scores must know (resizing).
    """

    name: str
    batches: Iterable[Tensor]
    count: int | None
    type: TensorType
    notes: tuple[str, ...] = field(default=())

    def numbered(self, limit: int | None, *, raw: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """`(indices, samples)`, at most `limit` of them.

        Raises:
            ValueError: If a value is not finite or out of range.
        """
        first = 0
        for batch in self.batches:
            batch = batch[: None if limit is None else limit - first]
            if not len(batch):
                return
            yield torch.arange(first, first + len(batch)), self._checked(batch, raw)
            first += len(batch)

    def _checked(self, batch: Tensor, raw: bool) -> Tensor:
        if not bool(batch.isfinite().all()):
            raise ValueError(f"{self.name}: expected finite values, got NaN or infinity")
        if self.type.range is None:
            return batch
        low, high = self.type.range
        if float(batch.min()) < low - 1e-3 or float(batch.max()) > high + 1e-3:
            got = f"{float(batch.min()):.4g} to {float(batch.max()):.4g}"
            raise ValueError(f"{self.name}: expected values in [{low:g}, {high:g}], got {got}")
        if raw:
            return batch
        return ((batch - low) * (255 / (high - low))).round().clamp(0, 255) * ((high - low) / 255) + low


def source(samples: Samples, name: str, *, num: int | None, seed: int = 0, size: int | None = None) -> Source:
    """The source of some samples.

    Args:
        samples: A tensor or array `n ...` (uint8 images are spread over [−1, 1], floating ones must lie there), a path
            of a `.npy` or of a folder of images, an iterable of batches, or a Model.
        name: What messages call it.
        num: How many a Model is sampled for.
        seed: Seed of a Model's noise.
        size: Side that images of a folder are resized and cropped to; the first image's shorter one where not given.

    Raises:
        ValueError: If they are none of these, empty, or cannot be read.
    """
    if isinstance(samples, Model):
        if num is None:
            raise ValueError(f"{name}: expected a number of samples to draw from a Model, got none")
        return from_model(samples, name, num, seed)
    if isinstance(samples, str | PathLike):
        path = Path(samples)
        if path.suffix == ".npy":
            return _from_array(_opened(path, name), name)
        if path.is_dir():
            return _from_folder(path, name, size)
        raise ValueError(f"{name}: expected a folder of images or a .npy file, got {path}")
    if isinstance(samples, np.ndarray):
        return _from_array(samples, name)
    if isinstance(samples, Tensor):
        return _from_array(samples.detach().cpu().numpy(), name)
    rest = iter(samples)
    first = next(rest, None)
    if first is None or not len(first):
        raise ValueError(f"{name}: expected samples, got none")
    return Source(name, chain([first], rest), None, _array_type(first.shape))


def from_data(data: Data, split: str, name: str) -> Source:
    """A data set's split, in its order."""
    count = data.splits[split]

    def batches() -> Iterator[Tensor]:
        for start in range(0, count, 256):
            yield data.read(split, range(start, min(start + 256, count)), Rng(0, start)).tensor

    return Source(name, _Again(batches), count, data.x)


def from_model(model: Model, name: str, num: int, seed: int) -> Source:
    """Samples of a Model: sample i of a seed, in any batch."""

    def batches() -> Iterator[Tensor]:
        for start in range(0, num, 256):
            x = model.sample(min(256, num - start), seed=seed, first=start)
            if isinstance(x, tuple):
                raise ValueError(f"{name}: expected samples of one tensor, got a hierarchy")
            yield (x if ends is None else x.clamp(*ends)).float().cpu()

    ends = model.single.range
    return Source(name, _Again(batches), num, model.single)


class _Again:
    """An iterable that begins anew each time."""

    def __init__(self, make: Any) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._make())


def _from_array(array: np.ndarray[Any, Any], name: str) -> Source:
    if array.ndim < 2 or len(array) < 2:
        raise ValueError(f"{name}: expected at least 2 samples of at least one dimension, got shape {array.shape}")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name}: expected uint8 or floating values, got {array.dtype}")

    def batches() -> Iterator[Tensor]:
        for start in range(0, len(array), 256):
            part = torch.from_numpy(np.array(array[start : start + 256], dtype=np.float32))
            yield part / 127.5 - 1 if array.dtype == np.uint8 else part

    return Source(name, _Again(batches), len(array), _array_type(array.shape))


def _array_type(shape: Sequence[int]) -> TensorType:
    """The type of one sample of an array: images `n c h w` lie in [−1, 1], anything else is unbounded."""
    return TensorType(tuple(shape[1:]), (-1.0, 1.0) if len(shape) == 4 else None)


def _opened(path: Path, name: str) -> np.ndarray[Any, Any]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{name}: {path} cannot be read as an array without pickle: {error}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name}: expected an array in {path}, got {type(array).__name__}")
    return array


def _from_folder(path: Path, name: str, size: int | None) -> Source:
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    modes: set[str] = set()
    pictures = sorted(p for p in path.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp", ".bmp"))
    if len(pictures) < 2:
        raise ValueError(f"{name}: expected at least 2 images in {path}, got {len(pictures)}")
    for picture in pictures[:1000]:
        try:
            with Image.open(picture) as image:
                sizes.add(image.size)
                modes.add(image.mode)
        except OSError as error:
            raise ValueError(f"{name}: {picture} is no image that can be read: {error}") from error
    side = min(min(pair) for pair in sizes) if size is None else size
    grey = modes <= {"L", "1", "I;16"}
    if not grey and modes & {"L", "1", "I;16"}:
        raise ValueError(f"{name}: expected images of one kind in {path}, got grey and coloured ones: {sorted(modes)}")
    data = ImageFolder(root=str(path), size=side, channels=1 if grey else 3, test=0.0)
    found = from_data(data, "train", name)
    if sizes != {(side, side)}:
        found.notes = (f"{name}: images of {len(sizes)} sizes, resized and cropped to {side}×{side}",)
    return found
