"""Pictures streamed from tar shards (Aizman et al., 2019), on disk or over a network: no index, no random access.

    a pass: the shards in an order drawn for it; share p of P reads shards p, p + P, …; a buffer mixes their samples

Shape letters: b batch, c channels, h w spatial.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import count
from typing import Annotated, Literal, TypeVar

import torch
from torch import Tensor

from modkit.data.channels import parse_colour
from modkit.data.loader import draw_permutation
from modkit.data.members import read_class
from modkit.data.moments import measure_std
from modkit.data.picture import DAMAGE, read_picture
from modkit.data.pictures import Background, Crop, Flip, Size
from modkit.data.pixels import scale_pixels
from modkit.data.splits import check_split, hash_contents
from modkit.data.square import Square
from modkit.rng import Rng
from modkit.types import Batch, NonNegativeInt, PositiveInt, Range, TensorType, checked
from modkit_webdataset.shards import Shard, find_picture, list_shards, read_shard

__all__ = ["Stream"]

_T = TypeVar("_T")
_MEASURED = 256  # of pictures whose deviation is measured
_FEWEST = 1000  # pictures of which a share may be damaged
_DRAWN = 4096  # places in the buffer that are drawn at once

_logger = logging.getLogger(__name__)


@checked
class Stream:
    """The pictures in tar shards named as webdataset's, `b channels size size` in [-1, 1], and their `labels` (`b`).

    The largest square of a picture is resized to `size`. A sample is a picture `KEY.jpg` with its class in `KEY.cls`,
    or in `KEY.json`. Training is inexact: a resumed run begins a new pass. Data on disk that `archive` can read are
    better read by it.

    Args:
        shards: Paths or URLs (http, https, gs, hf) of the training shards; braces (`{000..099}`) make lists, `*`
            matches files. There must be as many as processes times workers.
        num: Number of samples in them.
        held_out: The shards of the split `test`, if there is one.
        num_held_out: Number of samples in them.
        classes: Number of classes; 0 reads no labels.
        label: Name of the class in `KEY.json`.
        buffer: Number of encoded samples that each process or worker keeps and draws the next from.
        channels: 3 for colour, 1 for grey, 4 for colour and opacity.
        damaged: Largest share of the pictures that may be damaged, in [0, 1), of each 1,000 or more that a share of a
            pass reads; they are named and skipped.

    Raises:
        ValueError: If there is no such shard, or a setting is out of range.

    Examples:
        >>> import tarfile, tempfile
        >>> from PIL import Image
        >>> path = f"{tempfile.mkdtemp()}/shard.tar"
        >>> with tarfile.open(path, "w") as archive:
        ...     Image.new("RGB", (6, 4), "white").save(file := io.BytesIO(), "PNG")
        ...     member = tarfile.TarInfo("0.png")
        ...     member.size = file.tell()
        ...     archive.addfile(member, io.BytesIO(file.getvalue()))
        >>> data = Stream(shards=path, num=1, size=4)
        >>> [data.finish(batch).tensor.mean() for batch in data.stream("train", 0, 1, Rng(0))]
        [tensor(1.)]

    References:
        High Performance I/O for Large Scale Deep Learning (Aizman et al., 2019), https://arxiv.org/abs/2001.01858
    """

    levels: int | None = 256
    finish = staticmethod(scale_pixels)

    def __init__(
        self,
        *,
        shards: str | list[str],
        num: PositiveInt,
        held_out: str | list[str] | None = None,
        num_held_out: NonNegativeInt = 0,
        classes: NonNegativeInt = 0,
        label: str = "label",
        buffer: PositiveInt = 1000,
        size: Size = 64,
        channels: Literal[1, 3, 4] = 3,
        flip: Flip = False,
        crop: Crop = "center",
        background: Background = "white",
        damaged: Annotated[float, Range(0, below=1)] = 0.01,
    ) -> None:
        if (held_out is None) != (num_held_out == 0):
            raise ValueError(f"Stream expects both held_out and num_held_out, got {held_out!r} and {num_held_out}")
        self._shards = {"train": list_shards(shards), "test": [] if held_out is None else list_shards(held_out)}
        self._square = Square(size, channels, parse_colour(background), flip, crop)
        self._classes, self._label, self._buffer, self._damaged = classes, label, buffer, damaged
        self.fields = {"labels": TensorType((), classes=classes)} if classes else {}
        self.splits = {"train": num, "test": num_held_out}

    @cached_property
    def x(self) -> TensorType:
        """The type of a picture, whose deviation is measured over the first of a pass when it is first asked for."""
        shape = (self._square.channels, self._square.size, self._square.size)
        return TensorType(shape, range=(-1.0, 1.0), std=measure_std(self, _MEASURED))

    @property
    def key(self) -> str:
        """Hash of the names of the shards, the numbers of samples, and settings; contents are not known."""
        names = [name for split, shards in self._shards.items() for name in (split, *(shard.name for shard in shards))]
        settings = repr((self.splits, self._classes, self._label, self._square))
        return hash_contents("webdataset/stream", settings, *names)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Refuses to read by index.

        Raises:
            ValueError: Always.
        """
        raise ValueError("Stream cannot be read by index; `archive` can, if its shards are on disk")

    def stream(self, split: str, part: int, parts: int, rng: Rng) -> Iterator[Batch]:
        """Reads share `part` of `parts` of a split, one picture at a time, bytes `1 c h w`; it augments `train`.

        Raises:
            OSError: If a shard cannot be opened or read.
            ValueError: If there is no such split, there are fewer shards than shares, a shard or too many pictures are
                damaged, or a label is missing or out of range.
        """
        check_split(self, split)
        shards = self._shards[split]
        if len(shards) < parts:
            raise ValueError(
                f"Stream expects a shard for each of {parts} processes times workers, got {len(shards)} in {split!r}"
            )
        order = draw_permutation(rng.at("shards"), len(shards))[part::parts].tolist()
        own = rng.at("share", part)
        samples = (sample for number in order for sample in self._read(shards[number]))
        damaged = 0
        for number, (place, encoded, fields) in enumerate(_mix(samples, self._buffer, own.at("buffer"))):
            try:
                pixels = self._decode(encoded, own.at("augment", number) if split == "train" else None)
            except DAMAGE as error:
                damaged += 1
                _logger.warning("the picture of %r is damaged and skipped: %r", place, error)
                if damaged > self._damaged * max(number + 1, _FEWEST):
                    raise ValueError(
                        f"Stream expects at most a share of damaged={self._damaged:g} of the pictures to be damaged, "
                        f"got {damaged:,} of {number + 1:,}, the last of {place!r}"
                    ) from error
                continue
            yield Batch(pixels, fields)

    def _read(self, shard: Shard) -> Iterator[tuple[str, bytes, dict[str, Tensor]]]:
        """Yields the encoded pictures of a shard, each with its place for messages and its fields."""
        for place, files in read_shard(shard):
            if (encoded := find_picture(files)) is not None:
                yield place, encoded, self._find_fields(files, place)

    def _find_fields(self, files: Mapping[str, bytes], place: str) -> dict[str, Tensor]:
        if not self._classes:
            return {}
        number = read_class(files, self._label, place)
        if number is None or number >= self._classes:
            raise ValueError(f"Stream expects a class below {self._classes} in every sample, got {number} in {place!r}")
        return {"labels": torch.tensor([number])}

    def _decode(self, encoded: bytes, rng: Rng | None) -> Tensor:
        with read_picture(io.BytesIO(encoded)) as image:
            return torch.from_numpy(self._square.cut(image, rng).copy()).permute(2, 0, 1)[None].contiguous()


def _mix(samples: Iterable[_T], size: int, rng: Rng) -> Iterator[_T]:
    """Yields samples in another order: each is drawn from a buffer that the next one fills up."""
    places = (place for n in count() for place in rng.at(n).uniform("place", torch.empty(1, _DRAWN))[0].tolist())
    kept: list[_T] = []
    for sample in samples:
        if len(kept) < size:
            kept.append(sample)
            continue
        place = int(next(places) * size)
        yield kept[place]
        kept[place] = sample
    while kept:
        place = int(next(places) * len(kept))
        kept[place], kept[-1] = kept[-1], kept[place]
        yield kept.pop()
