"""Condensed samples in files, of which any rows are read without reading the rest.

    FOLDER/0.bin, 1.bin, …    the values of x, then the fields, a row for each sample
    FOLDER/view.json          the number of rows, name (null for x), dtype, shape of a row and SHA-256 of each; last

Several processes write rows of their own. The files are written, not mapped: a full disk is then an error, not the end
of the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modkit.rng import Rng
from modkit.runs.files import BLOCK, name_errors, open_own, open_regular, write_all, write_file
from modkit.types import Batch

__all__ = ["StoredView", "ViewWriter"]

_INDEX = "view.json"
_FORMAT = 2


class StoredView:
    """One view of a data set, read from its files, whose bytes `verify` compares with what was written.

    Args:
        folder: The folder, which is complete.

    Raises:
        FileNotFoundError: If it is missing or was never completed.
        ValueError: If it is damaged, or of another version of modkit.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with ViewWriter(folder, num=2) as writer:
        ...     writer.write(0, Batch((torch.tensor([[1.0], [2.0]]),), {"labels": torch.tensor([3, 4])}))
        ...     writer.sync()
        ...     writer.complete()
        >>> batch = StoredView(folder).read("train", [1], Rng(0))
        >>> batch.x, batch.fields
        ((tensor([[2.]]),), {'labels': tensor([4])})
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        text = (folder / _INDEX).read_text()
        try:
            index = json.loads(text)
            if index["format"] != _FORMAT:
                raise ValueError(f"expected format {_FORMAT}, got {index['format']!r}")
            self._names = [column["name"] for column in index["columns"]]
            self._digests = [column["sha256"] for column in index["columns"]]
            self._columns = [
                _map_column(folder / f"{number}.bin", int(index["num"]), column)
                for number, column in enumerate(index["columns"])
            ]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{folder} is damaged: {error!r}") from error

    def verify(self) -> None:
        """Reads all files once and compares their hashes.

        Raises:
            ValueError: If one is not what was written.
        """
        for number, digest in enumerate(self._digests):
            if _hash_column(self._folder, number) != digest:
                raise ValueError(f"{self._folder} is damaged: {number}.bin differs from its SHA-256")

    def __reduce__(self) -> tuple[type[StoredView], tuple[Path]]:
        return StoredView, (self._folder,)  # a process that reads data maps the files itself

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the condensed samples at `indices`; there is nothing to draw."""
        rows = torch.as_tensor(indices)
        found = [(name, column[rows]) for name, column in zip(self._names, self._columns)]
        x = tuple(value for name, value in found if name is None)
        return Batch(x, {name: value for name, value in found if name is not None})


class ViewWriter:
    """Writes rows of a view into a folder, which it makes; another process may write other rows.

    Args:
        folder: The folder, in which `StoredView` finds nothing until it is completed.
        num: Number of rows of the whole view.
    """

    def __init__(self, folder: Path, num: int) -> None:
        self._folder, self._num = folder, num
        self._columns: list[dict[str, Any]] = []
        self._descriptors: list[int] = []
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> ViewWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def write(self, first: int, batch: Batch) -> None:
        """Writes the rows from `first` on, of which all batches have the same types.

        Raises:
            OSError: If the view does not fit on the disk, or cannot be written.
        """
        named = list(_list_columns(batch))
        if not self._columns:
            self._columns = [_describe(name, value) for name, value in named]
            self._check_space(sum(value[0].nbytes for _, value in named))
            for number in range(len(named)):
                self._descriptors.append(open_own(str(self._folder / f"{number}.bin"), os.O_WRONLY | os.O_CREAT))
        with name_errors(self._folder):
            for descriptor, (_, value) in zip(self._descriptors, named, strict=True):
                os.lseek(descriptor, first * value[0].nbytes, os.SEEK_SET)
                write_all(descriptor, value.contiguous().flatten().view(torch.uint8).numpy().data)

    def sync(self) -> None:
        """Brings the rows to the disk."""
        with name_errors(self._folder):
            for descriptor in self._descriptors:
                os.fsync(descriptor)

    def complete(self) -> None:
        """Completes the view, all rows of which this process and others have written."""
        columns = [{**one, "sha256": _hash_column(self._folder, i)} for i, one in enumerate(self._columns)]
        index = {"format": _FORMAT, "num": self._num, "columns": columns}
        write_file(self._folder / _INDEX, json.dumps(index).encode())

    def _check_space(self, row: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if row * self._num > free:
            needed, there = row * self._num / 1e9, free / 1e9
            raise OSError(
                f"{self._folder} expects {needed:,.1f} GB for {self._num:,} samples, got {there:,.1f} GB free; "
                "MODKIT_CACHE sets another folder"
            )


def _list_columns(batch: Batch) -> Iterator[tuple[str | None, Tensor]]:
    for value in batch.x if isinstance(batch.x, tuple) else (batch.x,):
        yield None, value
    yield from sorted(batch.fields.items())


def _describe(name: str | None, value: Tensor) -> dict[str, Any]:
    return {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape[1:])}


def _hash_column(folder: Path, number: int) -> str:
    digest = hashlib.sha256()
    with open_regular(folder / f"{number}.bin") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _map_column(path: Path, num: int, column: dict[str, Any]) -> Tensor:
    """Maps a file whose size must be that of `num` rows."""
    dtype = getattr(torch, str(column["dtype"]))
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"expected a dtype, got {column['dtype']}")
    shape = (num, *column["shape"])
    size = torch.Size(shape).numel()
    if not path.exists() or path.stat().st_size != size * dtype.itemsize:
        raise ValueError(f"expected {size * dtype.itemsize} bytes in {path.name}")
    return torch.from_file(str(path), shared=False, size=size, dtype=dtype).view(shape)
