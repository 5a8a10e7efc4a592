"""Augmented data: another data set whose training pictures are changed, with a field that says how.

    augmentation of sample i = parameters drawn from rng.at("augmentation", i), zero where nothing is changed
    picture of sample i = x_i warped by the map that they describe

A model that is told the parameters learns from changed pictures without drawing any: at zeros, its samples are those of
the data as they are. So test pictures have zeros, and so have the fields that conditioners are prepared with
(`DataExtras.plain`). Pictures are warped where batches are finished, on the device.

Shape letters: b batch, c channels, h w spatial, d parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace

import torch
from torch import Tensor

from modkit.augmentations.geometry import Change, Geometry
from modkit.augmentations.warp import warp
from modkit.data.each import Each
from modkit.data.splits import check_indexed, check_split, finish_batch, hash_contents
from modkit.kinds import Data, DataExtras, Slot, default, read_extras
from modkit.rng import Rng
from modkit.types import Batch, TensorType

__all__ = ["Augmented"]

_FIELD = "augmentation"


class Augmented:
    """A data set whose training pictures are flipped, scaled, turned, stretched and moved: non-leaky augmentation.

    It has the types, splits and levels of the data set, and the field `augmentation`, which a model trained on it must
    read: by the conditioner `vector`, with `drop: 0` beside guidance. Values between pixels are interpolated linearly,
    and what comes in from outside is mirrored.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), appendix F.2,
        https://arxiv.org/abs/2206.00364

    Args:
        data: The data set, of continuous pictures.
        p: Probability of each change, in [0, 1]; half of the pictures are flipped along x whatever it is.
        changes: The changes that are made.

    Raises:
        ValueError: If the data are a stream, are no pictures, or have fields that are pictures or the field
            `augmentation`, a change is unknown, there is none, or `p` is outside [0, 1].

    Examples:
        >>> from modkit.data import Digits
        >>> data = Augmented(data=lambda: Digits(size=8))
        >>> data.read("train", [0, 1], Rng(0)).fields["augmentation"].shape
        torch.Size([2, 9])
        >>> data.read("test", [0, 1], Rng(0)).fields["augmentation"].any()
        tensor(False)
    """

    def __init__(
        self,
        *,
        data: Slot[Data] = default("digits"),
        p: float = 0.12,
        changes: list[Change] = ["x-flip", "y-flip", "scaling", "rotation", "anisotropy", "translation"],  # noqa: B006
    ) -> None:
        self.data = data()
        check_indexed(self.data, "Augmented")
        if len(self.data.x.shape) != 3 or self.data.x.classes is not None:
            raise ValueError(f"Augmented expects continuous pictures (c, h, w), got {self.data.x}")
        if unfit := {name: str(type) for name, type in self.data.fields.items() if name == _FIELD or _is_map(type)}:
            raise ValueError(
                f"Augmented expects data without a field {_FIELD!r} and without maps, which would not be changed as "
                f"pictures are, got {unfit}; augment the data that `corrupted` makes maps of"
            )
        self.geometry = Geometry(changes, p=p)
        self.fields = {**self.data.fields, _FIELD: TensorType((self.geometry.num,))}
        self.splits, self.levels = self.data.splits, self.data.levels
        extras = read_extras(self.data, DataExtras)
        self.truth, self.features, self.factors = extras.truth, extras.features, extras.factors
        self.conditions = (*extras.conditions, _FIELD)
        self._changed: tuple[str, ...] = ("train",)

    @property
    def x(self) -> TensorType:
        """The type of a sample, with the deviation of the data as they are."""
        return self.data.x

    @property
    def key(self) -> str:
        """Hash of the data and of the changes."""
        return hash_contents("augmented", self.data.key, self.geometry.p, *self.geometry.changes, *self._changed)

    @property
    def plain(self) -> Data:
        """The same data without changes, whose parameters are zero."""
        plain = copy(self)
        plain._changed = ()
        return plain

    @property
    def read_fields(self) -> Callable[[str, Sequence[int]], Mapping[str, Tensor]] | None:
        """Reads the fields at given indices; None where parameters are drawn."""
        return None if self._changed else self._read_plain_fields

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices` as the data do, with the parameters of the changes that `finish` makes, `b d`.

        Raises:
            ValueError: If there is no such split.
        """
        check_split(self, split)
        batch = self.data.read(split, indices, rng)
        parameters = torch.zeros(len(indices), self.geometry.num)
        if split in self._changed:
            each = Each([rng.at(_FIELD, int(index)) for index in indices])
            parameters = self.geometry.draw(torch.empty(len(indices)), each)
        return replace(batch, fields={**batch.fields, _FIELD: parameters})

    def finish(self, batch: Batch) -> Batch:
        """Warps pictures, `b c h w`, by their parameters."""
        finished = finish_batch(self.data, batch)
        height, width = self.data.x.shape[1:]
        maps = self.geometry.make_maps(batch.fields[_FIELD], (height, width))
        return replace(finished, x=warp(finished.tensor, maps))

    def _read_plain_fields(self, split: str, indices: Sequence[int]) -> dict[str, Tensor]:
        read = read_extras(self.data, DataExtras).read_fields
        fields = read(split, indices) if read else self.data.read(split, indices, Rng(0)).fields
        return {**fields, _FIELD: torch.zeros(len(indices), self.geometry.num)}


def _is_map(type: TensorType) -> bool:
    """Whether a field has positions of a picture: values `c h w`, or codes `h w`."""
    return len(type.shape) >= (3 if type.classes is None else 2)
