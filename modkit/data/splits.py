"""Splits of a data set: how they are checked and read, and the hash that identifies contents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from modkit.kinds import Data, DataExtras, read_extras
from modkit.rng import Rng
from modkit.types import Batch, TensorType

__all__ = [
    "InMemory",
    "check_indexed",
    "check_split",
    "concatenate_batches",
    "find_plain",
    "finish_batch",
    "hash_contents",
    "is_stream",
    "read_samples",
    "strip",
]


class Made(Protocol):
    """A data set made of another one."""

    data: Data


T = TypeVar("T", bound=Made)


class InMemory:
    """Base of data sets in memory; a subclass sets its types and, for each split, the samples and their labels."""

    x: TensorType
    fields: dict[str, TensorType]
    splits: dict[str, int]
    levels: int | None
    _samples: Mapping[str, tuple[Tensor, Tensor]]

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`; there is no augmentation, so `rng` is not used.

        Raises:
            ValueError: If there is no such split.
        """
        check_split(self, split)
        rows = torch.as_tensor(indices, dtype=torch.long)
        x, labels = (values.index_select(0, rows) for values in self._samples[split])
        return Batch(self._decode(x), {"labels": labels.long()})

    def read_fields(self, split: str, indices: Sequence[int]) -> dict[str, Tensor]:
        """Reads the labels at `indices` without the samples.

        Raises:
            ValueError: If there is no such split.
        """
        check_split(self, split)
        return {"labels": self._samples[split][1][torch.as_tensor(indices, dtype=torch.long)].long()}

    def _decode(self, x: Tensor) -> Tensor:
        return x


def check_split(data: Data | InMemory, split: str) -> None:
    """Checks that `data` has a split.

    Raises:
        ValueError: If it has no split of that name.
    """
    if split not in data.splits:
        raise ValueError(f"{type(data).__name__} expects a split of {sorted(data.splits)}, got {split!r}")


def is_stream(data: object) -> bool:
    """Whether data cannot be read by index, but only as a stream (`DataExtras.stream`)."""
    return read_extras(data, DataExtras).stream is not None


def check_indexed(data: object, owner: str) -> None:
    """Checks that data can be read by index.

    Raises:
        ValueError: If they are a stream; the message begins with `owner`.
    """
    if is_stream(data):
        raise ValueError(f"{owner} expects data that can be read by index, got {type(data).__name__}, a stream")


def concatenate_batches(batches: Sequence[Batch]) -> Batch:
    """Concatenates the rows of batches from a data set, which have no `cond`.

    Examples:
        >>> batches = [Batch(torch.zeros(2, 1), {}), Batch(torch.ones(1, 1), {})]
        >>> concatenate_batches(batches).tensor.tolist()
        [[0.0], [0.0], [1.0]]
    """
    first = batches[0]
    if len(batches) == 1:
        return Batch(first.x, dict(first.fields))
    fields = {name: torch.cat([batch.fields[name] for batch in batches]) for name in first.fields}
    if isinstance(first.x, tuple):
        return Batch(tuple(torch.cat(level) for level in zip(*(batch.x for batch in batches), strict=True)), fields)
    return Batch(torch.cat([batch.tensor for batch in batches]), fields)


def finish_batch(data: object, batch: Batch) -> Batch:
    """Finishes a batch that `data.read` returned (`DataExtras.finish`); what a stage has cached needs none."""
    finish = read_extras(data, DataExtras).finish
    return batch if finish is None else finish(batch)


def read_samples(data: Data, split: str, indices: Sequence[int], rng: Rng) -> Batch:
    """Reads the samples at `indices` as models see them: what `data.read` returns, finished.

    Examples:
        >>> from modkit.data import Ring
        >>> read_samples(Ring(num=4), "train", [0, 1], Rng(0)).tensor.shape
        torch.Size([2, 2])
    """
    return finish_batch(data, data.read(split, indices, rng))


def find_plain(data: Data) -> Data:
    """Returns data without augmentation (`DataExtras.plain`); most are that."""
    plain = read_extras(data, DataExtras).plain
    return data if plain is None else plain


def strip(made: T) -> T | None:
    """Returns a data set made of another one, `made.data`, as it is of that one's `plain`; None if it has none."""
    plain = read_extras(made.data, DataExtras).plain
    if plain is None:
        return None
    stripped = copy(made)
    stripped.data = plain
    return stripped


def hash_contents(*pieces: bytes | str | int | float | bool) -> str:
    """Hashes contents and settings, each with its length; the hash is the same in every process.

    Examples:
        >>> hash_contents("digits", 8) == hash_contents("digits", 8) != hash_contents("digits8")
        True
    """
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        content = piece if isinstance(piece, bytes) else repr(piece).encode()
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()
