"""A store of the pictures in a column of a dataset, by the numbers of their rows."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import datasets

from modkit.data.store import Stamp, read_stamp
from modkit.runs.files import hash_data, open_regular

__all__ = ["Rows"]


class Rows:
    """The encoded pictures of a split; the name of one is the number of its row.

    Args:
        dataset: The split.
        column: The column of pictures.
        where: Where the dataset is, for messages.

    Raises:
        ValueError: If there is no such column, or it is not one of pictures.
    """

    def __init__(self, dataset: datasets.Dataset, column: str, where: str) -> None:
        feature = dataset.features.get(column)
        if not isinstance(feature, datasets.Image):
            images = [name for name, one in dataset.features.items() if isinstance(one, datasets.Image)]
            got = "no such column" if feature is None else f"{feature}"
            raise ValueError(
                f"Datasets expects a column of pictures in {where!r}, one of {images}, got {column}: {got}"
            )
        self._column, self._where = column, where
        self._encoded = dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
        files = [list(read_stamp(os.stat(one["filename"]))) for one in dataset.cache_files]
        digest = hash_data(f"{column} {dataset._fingerprint} {files}")
        self._stamp = (len(dataset), int(digest[:12], 16), 0)

    def list_names(self) -> list[bytes]:
        """Lists the names of all pictures."""
        return [b"%09d" % row for row in range(len(self._encoded))]

    def locate(self, name: bytes) -> str:
        """The dataset and the row, for messages; the store itself is one column of the dataset."""
        return os.path.join(self._where, name.decode() or self._column)

    def read_stamp(self, name: bytes) -> Stamp:
        """The stamp of the whole column: the split's files, and what was done with them."""
        return self._stamp

    @contextmanager
    def open(self, name: bytes) -> Iterator[BinaryIO]:
        """Opens a picture; a row without one is an empty file."""
        found: dict[str, Any] = self._encoded[int(name)][self._column] or {}
        if found.get("bytes") is None and found.get("path"):
            with open_regular(found["path"]) as file:
                yield file
        else:
            yield io.BytesIO(found.get("bytes") or b"")


def read_labels(dataset: datasets.Dataset, column: str, rows: Sequence[int]) -> list[Any]:
    """Reads a column of labels at some rows, without decoding anything else."""
    values = dataset.select_columns([column])[column][:]
    return [values[row] for row in rows]
