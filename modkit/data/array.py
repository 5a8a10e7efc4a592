"""Arrays: samples and their fields in `.npy` files, which are mapped into memory and never loaded whole.

Bytes are pictures or other values in [-1, 1] (`modkit.data.pixels`), floats are values as they are, and integers of
which the number of classes is given are codes. Row i belongs to the test split if a hash of i is below its share, so
that rows that are appended move no other.

Shape letters: n samples, b batch, c channels, h w spatial.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modkit.data.arrays import map_array
from modkit.data.bounds import find_bounds
from modkit.data.file_hashes import hash_files
from modkit.data.labels import count_labels, review_labels
from modkit.data.moments import measure_std
from modkit.data.pixels import scale_pixels
from modkit.data.splits import check_split, hash_contents
from modkit.data.store import show_place
from modkit.kinds import Finding
from modkit.rng import Rng
from modkit.types import Batch, Range, TensorType, checked

__all__ = ["Array", "has_channels_last", "order_axes"]

_BLOCK = 2**24  # bytes of a file that are looked at at once
_CHANNELS = (1, 3, 4)


@checked
class Array:
    """The rows of an array in a `.npy` file, with fields from others.

    | type | samples |
    | --- | --- |
    | uint8 | pictures `n c h w`, `n h w c` or `n h w` (grey), or other bytes `n …`, scaled to [-1, 1] |
    | floats | values `n …` as they are, converted to float32 |
    | integers | codes `n …` in [0, `classes`) |

    A field of integers has as many classes as its largest value and 1; one of floats is continuous.

    Args:
        path: The file of the samples.
        fields: Files of fields by their names, such as `{labels: labels.npy}`, each with a row for each sample.
        classes: Number of classes, if the samples are codes.
        bounds: Lowest and highest value of floats; None if they are unbounded.
        test: Share of the samples in the test split, in [0, 1).

    Raises:
        ValueError: If a file cannot be read without pickle, its array has another type or number of rows than expected,
            no row is left to train on, or a setting is out of range.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> np.save(f"{folder}/x.npy", np.zeros((6, 8, 8, 3), dtype=np.uint8))
        >>> np.save(f"{folder}/y.npy", np.array([0, 1, 2, 0, 1, 2]))
        >>> data = Array(path=f"{folder}/x.npy", fields={"labels": f"{folder}/y.npy"}, test=0.0)
        >>> str(data.x), data.read("train", [5, 0], Rng(0)).fields["labels"]
        ('3×8×8 in [-1, 1]', tensor([2, 0]))
    """

    levels: int | None = None
    finish: Callable[[Batch], Batch]

    def __init__(
        self,
        *,
        path: str,
        fields: dict[str, str] | None = None,
        classes: int | None = None,
        bounds: list[float] | None = None,
        test: Annotated[float, Range(0, below=1)] = 0.1,
    ) -> None:
        if bounds is not None and not (len(bounds) == 2 and bounds[0] < bounds[1]):
            raise ValueError(f"Array expects bounds [low, high] with low < high, got {bounds}")
        self._samples = _Rows(path, pictures=classes is None)
        self._type = self._infer_type(classes, bounds)
        if self._samples.dtype == np.uint8 and classes is None:
            self.levels, self.finish = 256, scale_pixels
        self._fields = {name: _Rows(one) for name, one in (fields or {}).items()}
        self.fields = {name: rows.infer_field() for name, rows in self._fields.items()}
        num = len(self._samples)
        for name, rows in self._fields.items():
            if len(rows) != num:
                raise ValueError(
                    f"Array expects {num:,} rows of {name}, as in {path}, got {len(rows):,} in {rows.path}"
                )
        held = _hash_rows(num) < test
        self._chosen = {"train": np.flatnonzero(~held), "test": np.flatnonzero(held)}
        self.splits = {split: len(rows) for split, rows in self._chosen.items()}
        if not self.splits["train"]:
            raise ValueError(
                f"Array expects samples to train on in {path}, got {num}, all of which are in the split test"
            )

    @cached_property
    def x(self) -> TensorType:
        """The type of a sample, whose deviation is measured when it is first asked for."""
        return self._type if self._type.classes is not None else replace(self._type, std=measure_std(self))

    @cached_property
    def key(self) -> str:
        """Hash of the files' contents, which are read in blocks, and settings."""
        files = (rows.hash() for rows in (self._samples, *self._fields.values()))
        return hash_contents("array", *files, *self._fields, str(self._type), *self.splits.values())

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`, of pictures the bytes; there is no augmentation, so `rng` is not used.

        Raises:
            ValueError: If there is no such split, or a value is not finite or out of range.
        """
        fields = self.read_fields(split, indices)
        return Batch(self._samples.read(self._chosen[split][list(indices)], self._type), fields)

    def read_fields(self, split: str, indices: Sequence[int]) -> dict[str, Tensor]:
        """Reads the fields at `indices` without the samples.

        Raises:
            ValueError: If there is no such split, or a value is not finite or out of range.
        """
        check_split(self, split)
        chosen = self._chosen[split][list(indices)]
        return {name: rows.read(chosen, self.fields[name]) for name, rows in self._fields.items()}

    def review(self) -> Iterator[Finding]:
        """Finds odd labels, in fields of which each sample has one."""
        for name, counts in count_labels(self, [self]).items():
            yield from review_labels(
                [str(number) for number in range(len(counts["train"]))], counts, path=f"fields.{name}"
            )

    def _infer_type(self, classes: int | None, bounds: Sequence[float] | None) -> TensorType:
        dtype, shape, path = self._samples.dtype, self._samples.shape, self._samples.path
        if classes is not None:
            if dtype.kind not in "iu" or bounds:
                raise ValueError(f"Array expects integers without bounds as codes, got {dtype} and {bounds} in {path}")
            return TensorType(shape, classes=classes)
        if dtype == np.uint8 and not bounds:
            return TensorType(shape, range=(-1.0, 1.0))
        if dtype.kind != "f":
            raise ValueError(
                f"Array expects uint8 without bounds, floats, or integers and their number of `classes`, got {dtype} "
                f"and bounds {bounds} in {path}"
            )
        return TensorType(shape, range=(bounds[0], bounds[1]) if bounds else None)


class _Rows:
    """The rows of a `.npy` file, which each process that reads them maps into its memory.

    Args:
        path: The file.
        pictures: Whether bytes are pictures, whose axes become `c h w`.
    """

    def __init__(self, path: str, *, pictures: bool = False) -> None:
        self.path, self._pictures = path, pictures
        array = self._array
        self.dtype, self.shape, self._num = array.dtype, array.shape[1:], len(array)

    def __len__(self) -> int:
        return self._num

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_array"}  # it would be copied whole

    @cached_property
    def _array(self) -> NDArray[Any]:
        try:
            array = map_array(Path(self.path))
        except (OSError, ValueError) as error:
            raise ValueError(f"Array expects an array without pickle in {show_place(self.path)}: {error}") from error
        if not array.size or array.ndim < 1 + self._pictures:
            raise ValueError(f"Array expects rows of values in {self.path!r}, got an array of shape {array.shape}")
        return order_axes(array) if self._pictures and array.dtype == np.uint8 else array

    def read(self, chosen: NDArray[np.int64], type: TensorType) -> Tensor:
        """Reads some of the rows: bytes, float32, or int64 if they have classes."""
        values = self._array[chosen]
        if type.classes is None and values.dtype == np.uint8:
            return torch.from_numpy(np.ascontiguousarray(values))
        low, high = find_bounds(type)
        least, most = (float(values.min()), float(values.max())) if values.size else (low, low)
        if not low <= least <= most <= high:
            expected = f"values in [{low:g}, {high:g}]" if type.classes or type.range else "finite values"
            raise ValueError(f"Array expects {expected} in {self.path!r}, got {least:g} to {most:g}")
        return torch.from_numpy(np.ascontiguousarray(values, np.float32 if type.classes is None else np.int64))

    def infer_field(self) -> TensorType:
        """Infers the type of a field: integers have as many classes as the largest and 1."""
        if self.dtype.kind == "f":
            return TensorType(self.shape)
        if self.dtype.kind not in "iu":
            raise ValueError(f"Array expects a field of integers or floats in {self.path!r}, got {self.dtype}")
        step = max(1, _BLOCK // self._array[0].nbytes)
        blocks = (self._array[start : start + step] for start in range(0, len(self), step))
        return TensorType(self.shape, classes=max(0, *(int(block.max()) for block in blocks)) + 1)

    def hash(self) -> bytes:
        """Hashes the file."""
        folder, name = os.path.split(os.path.realpath(os.fsencode(self.path)))
        return hash_files(folder, [name])[0]


def order_axes(array: NDArray[Any]) -> NDArray[Any]:
    """Orders the axes of pictures as `n c h w`.

    Examples:
        >>> order_axes(np.zeros((5, 8, 6, 3))).shape
        (5, 3, 8, 6)
    """
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[1] not in _CHANNELS and array.shape[3] in _CHANNELS:
        array = array.transpose(0, 3, 1, 2)
    return array


def has_channels_last(shape: Sequence[int]) -> bool:
    """Whether samples of a shape look like square pictures `h w c`.

    Examples:
        >>> has_channels_last((8, 8, 3)), has_channels_last((3, 8, 8)), has_channels_last((16, 4, 4))
        (True, False, False)
    """
    if len(shape) != 3:
        return False
    height, width, channels = shape
    return height == width and height not in _CHANNELS and channels in _CHANNELS


def _hash_rows(num: int) -> NDArray[np.float64]:
    """Hashes the numbers of rows to [0, 1), by the finalizer of SplitMix64."""
    z = np.arange(1, num + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) / 2.0**64
