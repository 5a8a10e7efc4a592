"""Sources: sets of samples in any form, read in batches so that they are never in memory all at once.

    a tensor or array `n ...`      a `.npy` file      a folder of images      an iterable of batches
    a Model or a run, sampled      a data set's split      a `.npz` file of `mu` and `sigma`, instead of samples

Shape letters: b batch, n samples, d features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modkit.building.session import load
from modkit.data.array import has_channels_last, order_axes
from modkit.data.arrays import map_array
from modkit.data.channels import count_channels
from modkit.data.image_folder import ImageFolder
from modkit.data.listing import list_pictures
from modkit.data.loader import draw_permutation
from modkit.data.picture import DAMAGE, read_picture
from modkit.data.splits import check_indexed, read_samples
from modkit.evaluation.statistics import load_statistics
from modkit.features.images import map_range
from modkit.kinds import Data, DataExtras, read_extras
from modkit.metrics.moments import Gaussian
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.runs.files import hash_data
from modkit.runs.run import Run
from modkit.types import Batch, Modes, Precision, TensorType

__all__ = [
    "BYTES",
    "SIZE",
    "Reading",
    "Samples",
    "Source",
    "draw_subset",
    "from_data",
    "from_model",
    "make_source",
]

Samples: TypeAlias = "Tensor | np.ndarray[Any, Any] | Iterable[Tensor] | str | PathLike[str] | Run | Model | Source"

SIZE = 256
"""Samples per batch."""

_SEEN = 256  # samples of an array whose lowest value is looked at

BYTES = (-1.0, 1.0)
"""The range of images that are read from bytes."""


class Reading(NamedTuple):
    """How folders of images are read.

    Args:
        size: Height and width that images are resized and cropped to; None is the smallest side of any image.
        channels: 1 for grey, 3 for colour, 4 for colour and opacity; None is 1 for grey and 3 for colour images, and
            refuses mixtures.
        background: The colour that transparency is laid on.
    """

    size: int | None = None
    channels: Literal[1, 3, 4] | None = None
    background: str = "white"


_PLAIN = Reading()


@dataclass
class Source:
    """A set of samples."""

    name: str  # its name in messages
    # gives its batches number r, r + W, … with the index of the first sample of each, from `(r, W)`
    batches: Callable[[int, int], Iterable[tuple[int, Batch]]]
    count: int | None  # number of samples, or None if it is not known in advance
    type: TensorType  # type of one sample; values outside its range are refused
    fields: tuple[str, ...] = ()  # names of the fields of its batches
    key: str = ""  # hash of the samples; empty if unknown
    levels: int | None = None  # number of values that an element of a sample can take, or None
    factors: tuple[str, ...] = ()  # names of the fields that are the factors of variation of synthetic data
    truth: Modes | None = None  # the true modes of synthetic data, or None
    precision: Precision = "float32"  # what a Model samples in
    given: Gaussian | None = None  # mean and covariance of features, instead of samples
    # returns the same source with images of another size; None if it cannot be resized
    at: Callable[[int], Source] | None = None
    # returns the source of its samples at indices; None if they can only be read in order
    pick: Callable[[Sequence[int]], Source] | None = None
    notes: tuple[str, ...] = ()  # remarks for the reader of the scores, such as resizing
    assumed: bool = False  # whether its range is only assumed, as that of floating-point images is
    least: float | None = None  # lowest value of some of its samples, where its range is assumed
    background: str | None = None  # the colour that transparency is laid on, of images that are read so

    def number_batches(self, limit: int | None = None, rank: int = 0, world: int = 1) -> Iterator[tuple[Tensor, Batch]]:
        """Yields `(indices, batch)` of the first `limit` samples; of several processes, those of process `rank`.

        Raises:
            ValueError: If a value is not finite or out of range.
        """
        for first, batch in self.batches(rank, world):
            if limit is not None and first >= limit:
                return
            batch = batch.rows(slice(0, None if limit is None else limit - first))
            if not len(batch):  # an iterable may have empty batches
                continue
            self._check(batch.tensor)
            yield torch.arange(first, first + len(batch)), batch

    def choose(self, count: int) -> Source:
        """Returns the source of `count` samples: a fixed random subset, since files are often sorted by class.

        It is the same subset of all sources of equally many samples, so that samples that belong together stay so.
        What can only be read in order stays as it is, to be read up to a limit: an iterable, and a Model, whose first
        samples are as random as any.
        """
        if self.given is not None or (self.count is not None and self.count <= count):
            return self
        if self.count is None:
            return replace(self, notes=(*self.notes, f"{self.name}: at most the first {count} samples of an iterable"))
        if self.pick is None:
            return self
        note = f"{self.name}: {count} of {self.count} samples, a fixed random subset"
        subset = sorted(draw_subset("samples", self.count, count))  # in order, for files are read faster so
        return replace(self.pick(subset), notes=(*self.notes, note))

    def match_range(self, range: tuple[float, float] | None) -> Source:
        """Returns the same samples in another range: mapped to it, or taken to be in it if theirs is only assumed."""
        old = self.type.range
        if old is None or range is None or old == range:
            return self
        pick = self.pick
        matched = replace(
            self,
            type=replace(self.type, range=range),
            at=None,
            pick=None if pick is None else lambda indices: pick(indices).match_range(range),
        )
        if self.assumed:
            return matched

        def batches(rank: int, world: int) -> Iterator[tuple[int, Batch]]:
            for start, batch in self.batches(rank, world):
                yield start, replace(batch, x=map_range(batch.tensor, old, range))

        note = f"{self.name}: mapped from [{old[0]:g}, {old[1]:g}] to [{range[0]:g}, {range[1]:g}]"
        return replace(matched, batches=batches, notes=(*self.notes, note))

    def list_notes(self) -> list[str]:
        """Lists remarks, on values that seem to be in another range than theirs is assumed to be as well."""
        low, high = self.type.range or (0.0, 0.0)
        if self.least is None or not low < 0 <= self.least:
            return [*self.notes]
        expected = f"values of floating-point images are taken to be in [{low:g}, {high:g}]"
        return [
            *self.notes,
            f"{self.name}: no value is below 0, though {expected}: scale those in [0, 1] by `2 * x - 1`",
        ]

    def _check(self, x: Tensor) -> None:
        if not bool(x.isfinite().all()):
            raise ValueError(f"{self.name}: expected finite values, got NaN or infinity")
        if self.type.range is None:
            return
        low, high = self.type.range
        if float(x.min()) < low - 1e-3 or float(x.max()) > high + 1e-3:
            got = f"{float(x.min()):.4g} to {float(x.max()):.4g}"
            raise ValueError(f"{self.name}: expected values in [{low:g}, {high:g}], got {got}")


def make_source(
    samples: Samples,
    name: str,
    *,
    num: int | None = None,
    seed: int = 0,
    reading: Reading = _PLAIN,
    precision: Precision = "float32",
    device: torch.device | str = "cpu",
) -> Source:
    """Makes the source of samples in any form.

    Args:
        samples: A tensor or array `n ...` (uint8 images are mapped to [−1, 1]; floating-point images must be in this
            range), the path of a `.npy` file, of a `.npz` file with `mu` and `sigma`, of a folder of images or of a
            run, an iterable of batches, a run, or a Model.
        name: Its name in messages.
        num: Number of samples to draw from a Model.
        seed: Seed of a Model's noise.
        reading: How a folder of images is read.
        precision: What a Model samples in.
        device: Where the model of a run samples; a Model samples where it is.

    Raises:
        ValueError: If they have another form, are empty, or cannot be read.
    """
    if isinstance(samples, Source):
        return samples
    if isinstance(samples, str | PathLike) and (Path(samples) / "modkit.lock").is_file():
        samples = Run.open(samples)
    if isinstance(samples, Run):
        samples = load(samples, device=str(device))
    if isinstance(samples, Model):
        if num is None:
            raise ValueError(f"{name}: expected a number of samples to draw from a Model, got none")
        return from_model(samples, name, num, seed, precision=precision)
    if isinstance(samples, str | PathLike):
        path = Path(samples)
        if path.suffix == ".npy":
            return _from_array(_open_array(path, name), name)
        if path.suffix == ".npz":
            return _from_statistics(path, name)
        if path.is_dir():
            return _from_folder(path, name, reading)
        raise ValueError(f"{name}: expected a folder of images, a run, a .npy or a .npz file, got {path}")
    if isinstance(samples, np.ndarray):
        return _from_array(samples, name)
    if isinstance(samples, Tensor):
        return _from_array(_widen(samples.detach().cpu()).numpy(), name)
    if not isinstance(samples, Iterable) and not hasattr(samples, "__getitem__"):
        advice = "; of a data set, read them: `data.read(split, indices, Rng(0)).x`" if hasattr(samples, "read") else ""
        expected = "samples: a tensor or array, a path, an iterable of batches, a run or a Model"
        raise ValueError(f"{name}: expected {expected}, got {type(samples).__name__}{advice}")
    return _from_batches(samples, name)


def draw_subset(label: str, there: int, count: int) -> list[int]:
    """Draws the indices of a fixed random subset of `there` samples, in random order.

    Args:
        label: What they are samples of; equal labels have equal subsets.
        there: Number of samples that there are.
        count: Number of samples to draw.

    Examples:
        >>> len(draw_subset("train", 100, 3)), draw_subset("train", 100, 3) == draw_subset("train", 100, 5)[:3]
        (3, True)
    """
    return draw_permutation(Rng(0, "evaluate", label), there)[:count].tolist()


def from_data(data: Data, split: str, name: str, indices: Sequence[int] | None = None) -> Source:
    """Makes the source of a data set's split, in order, or of its samples at `indices`.

    Raises:
        ValueError: If the data are a stream.
    """
    check_indexed(data, name)
    chosen = range(data.splits[split]) if indices is None else indices

    def batches(rank: int, world: int) -> Iterator[tuple[int, Batch]]:
        for start in _start_batches(len(chosen), rank, world):
            yield start, read_samples(data, split, chosen[start : start + SIZE], Rng(0, start))

    mark = "all" if indices is None else hash_data(repr(list(indices)))
    key = f"{data.key}:{split}:{mark}"
    extras = read_extras(data, DataExtras)
    fields = tuple(data.fields)

    def pick(indices: Sequence[int]) -> Source:
        return from_data(data, split, name, [chosen[index] for index in indices])

    return Source(name, batches, len(chosen), data.x, fields, key, data.levels, extras.factors, extras.truth, pick=pick)


def from_model(
    model: Model, name: str, num: int, seed: int, given: Source | None = None, *, precision: Precision = "float32"
) -> Source:
    """Makes the source of `num` samples of a Model; sample i of a seed is the same in any batch.

    The Model is conditioned on the fields of `given`, sample by sample; without it the Model draws its fields.
    """
    reads = model.reads if given else ()

    def batches(rank: int, world: int) -> Iterator[tuple[int, Batch]]:
        conditions = iter(given.number_batches(num, rank, world)) if given and reads else None
        for start in _start_batches(num, rank, world):
            there = next(conditions)[1].fields if conditions else {}
            fields: dict[str, Any] = {field: there[field] for field in reads}
            x = model.sample(min(SIZE, num - start), seed=seed, first=start, precision=precision, **fields)
            if isinstance(x, tuple):
                raise ValueError(f"{name}: expected samples of one tensor, got a hierarchy")
            yield start, Batch((x if ends is None else x.clamp(*ends)).float(), fields)

    ends = model.single.range
    return Source(name, batches, num, model.single, reads, truth=given.truth if given else None, precision=precision)


def _from_array(array: np.ndarray[Any, Any], name: str, indices: Sequence[int] | None = None) -> Source:
    if array.ndim < 2 or len(array) < 2 or not array.size:
        raise ValueError(f"{name}: expected at least 2 samples of at least one dimension, got shape {array.shape}")
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name}: expected uint8 or floating values, got {array.dtype}")

    if array.dtype == np.uint8:
        array = order_axes(array) if array.ndim == 4 else array
    else:
        _check_axes(array.shape, name)
    chosen = range(len(array)) if indices is None else indices

    def batches(rank: int, world: int) -> Iterator[tuple[int, Batch]]:
        for start in _start_batches(len(chosen), rank, world):
            part = torch.from_numpy(np.array(array[list(chosen[start : start + SIZE])], dtype=np.float32))
            yield start, Batch(part / 127.5 - 1 if array.dtype == np.uint8 else part, {})

    def pick(indices: Sequence[int]) -> Source:
        return _from_array(array, name, [chosen[index] for index in indices])

    type, assumed = _infer_type(array.shape), array.dtype != np.uint8
    least = float(array[:: -(-len(array) // _SEEN)].min()) if assumed and type.range else None
    return Source(name, batches, len(chosen), type, assumed=assumed, least=least, pick=pick)


def _from_batches(samples: Iterable[Tensor], name: str) -> Source:
    rest = (_widen(_check_batch(x, name)) for x in samples)
    first = next((x for x in rest if len(x)), None)
    if first is None:
        raise ValueError(f"{name}: expected samples, got none")

    def batches(rank: int, world: int) -> Iterator[tuple[int, Batch]]:
        start = 0
        for number, x in enumerate(chain([first], rest)):
            if number % world == rank:
                yield start, Batch(x, {})
            start += len(x)

    _check_axes(first.shape, name)
    type = _infer_type(first.shape)
    return Source(name, batches, None, type, assumed=True, least=float(first.min()) if type.range else None)


def _check_batch(x: Tensor, name: str) -> Tensor:
    if not isinstance(x, Tensor):
        received = f"a {type(x).__name__}; of a loader of pairs, give `(images for images, labels in loader)`"
        raise ValueError(f"{name}: expected batches of one tensor, got {received}")
    return x


def _check_axes(shape: Sequence[int], name: str) -> None:
    """Refuses floating-point images whose channels come last; bytes are reordered, as in the data set `array`."""
    if has_channels_last(shape[1:]):
        got = "×".join(map(str, shape))
        advice = "`x.permute(0, 3, 1, 2)` of a tensor, `x.transpose(0, 3, 1, 2)` of an array"
        raise ValueError(f"{name}: expected images n c h w, got {got}, whose channels come last: give {advice}")


def _widen(x: Tensor) -> Tensor:
    """Returns values of 16 bits in float32: NumPy has no bfloat16, and neither resolves the 256 levels of an image."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _start_batches(num: int, rank: int, world: int) -> range:
    """The indices of the first samples of a process's batches."""
    return range(rank * SIZE, num, world * SIZE)


def _infer_type(shape: Sequence[int]) -> TensorType:
    """Returns the type of one sample of an array: images `n c h w` are in [−1, 1], other data are unbounded."""
    return TensorType(tuple(shape[1:]), BYTES if len(shape) == 4 else None)


def _open_array(path: Path, name: str) -> np.ndarray[Any, Any]:
    try:
        return map_array(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {path} cannot be read as an array without pickle: {error}") from error


def _from_statistics(path: Path, name: str) -> Source:
    try:
        given = load_statistics(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: expected `mu` and `sigma` in {path}, read without pickle: {error}") from error
    ends = given.origin.get("range")
    x = TensorType(tuple(given.mean.shape), tuple(ends) if ends else None)
    return Source(name, lambda rank, world: (), given.count, x, given=given)


def _from_folder(path: Path, name: str, reading: Reading) -> Source:
    sizes: set[tuple[int, int]] = set()
    grey: set[bool] = set()
    splits = list_pictures(str(path), 0.0)
    pictures = splits["train"]
    if splits["test"]:
        choices = f"{path / 'train'} ({len(pictures)} images) or {path / 'test'} ({len(splits['test'])})"
        raise ValueError(f"{name}: expected one set of images, got the splits of {path}; give {choices}")
    if len(pictures) < 2:
        raise ValueError(f"{name}: expected at least 2 images in {path}, got {len(pictures)}")
    for index in range(len(pictures)):
        try:
            with pictures.open(index) as file, read_picture(file) as image:  # reads only its header
                sizes.add(image.size)
                grey.add(count_channels(image) < 3)
        except DAMAGE as error:
            raise ValueError(f"{name}: {pictures.get_path(index)} cannot be read as an image: {error}") from error
    side = min(min(pair) for pair in sizes) if reading.size is None else reading.size
    if reading.channels is None and len(grey) > 1:
        raise ValueError(
            f"{name}: expected images in {path} to be all grey or all colour, got both; "
            "give the number of channels that all are converted to, as --channels 3"
        )
    channels = reading.channels or (1 if grey == {True} else 3)

    def at(side: int) -> Source:  # not scanned: each image is read once, and none that is damaged is left out
        data = ImageFolder(
            root=str(path), size=side, channels=channels, test=0.0, background=reading.background, damaged=None
        )
        found = from_data(data, "train", name)
        if sizes != {(side, side)}:
            there = f"{len(sizes)} sizes" if len(sizes) > 1 else "×".join(map(str, *sizes))
            found.notes = (f"{name}: images of {there}, resized and cropped to {side}×{side}",)
        found.at, found.background = at, reading.background if channels < 4 else None
        return found

    return at(side)
