"""The pictures in a folder or other store, with their splits and classes.

`modkit.data.split_names` says which folders are splits. Without any, a picture belongs to the test split if the hash of
its relative path is below `test`, so adding pictures moves no other picture. If every picture is in a subfolder of its
split, and there are at least two such subfolders, their sorted names are the classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save
from torch import Tensor

from modkit.data.names import Names
from modkit.data.split_names import check_mixture, choose_folders
from modkit.data.store import FileStore, Folder, show_place
from modkit.runs.cache import compute_once

__all__ = [
    "SUFFIXES",
    "Listing",
    "find_classes",
    "find_loose",
    "find_unread",
    "list_pictures",
    "number_classes",
    "split_pictures",
]

_MOST_LOOSE = 1_000
_MOST_CLASSES = 10_000  # of few pictures; ImageNet-21K has 21,841 of 14 million
SUFFIXES = (b".png", b".jpg", b".jpeg", b".webp", b".bmp", b".tif", b".tiff", b".gif", b".ppm", b".pgm")
"""How the names of pictures end, in lower case."""


class Listing(Names):
    """The sorted relative paths of pictures in a store.

    Args:
        store: The store.
        paths: The paths.

    Examples:
        >>> listing = Listing(Folder(b"/pictures"), [b"cat/1.png", b"dog/2.png"])
        >>> listing.get_path(1), listing.find_labels([b"cat", b"dog"]).tolist()
        ('/pictures/dog/2.png', [0, 1])
    """

    def __init__(self, store: FileStore, paths: Sequence[bytes]) -> None:
        super().__init__(paths)
        self.store = store

    def get_path(self, index: int) -> str:
        """The full path of a picture."""
        return self.store.locate(self[index])

    def open(self, index: int) -> AbstractContextManager[BinaryIO]:
        """Opens a picture's file."""
        return self.store.open(self[index])

    def find_labels(self, classes: Sequence[bytes]) -> Tensor:
        """The class of each picture, `n`: the index of its first folder in `classes`."""
        numbers = {name: number for number, name in enumerate(classes)}
        return torch.tensor([numbers[path.split(b"/", 1)[0]] for path in self], dtype=torch.long)


def list_pictures(root: str, test: float) -> dict[str, Listing]:
    """Lists the pictures in `root` by split, `train` and `test`.

    Args:
        root: The folder.
        test: Share of pictures in the test split, if the folder does not define splits.

    Raises:
        ValueError: If there is no such folder, or folders look like splits that cannot be told for certain.
    """
    folder = os.fsencode(root)
    if not os.path.isdir(folder):
        raise ValueError(f"ImageFolder expects a folder, got {show_place(root)}")
    name = f"listing the pictures in {os.path.realpath(root)!r}, {test} of them for testing"
    return _unpack(compute_once(name, lambda: _pack(_list_splits(folder, test))))


def _list_splits(folder: bytes, test: float) -> dict[str, Listing]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(b".")]
    chosen = choose_folders(map(os.fsdecode, names), os.fsdecode(folder))
    if own := {split: os.path.join(folder, os.fsencode(name)) for split, name in chosen.items()}:
        return {split: Listing(Folder(path), sorted(_walk(path, b"", ()))) for split, path in own.items()}
    return split_pictures(Folder(folder), sorted(_walk(folder, b"", ())), test)


def _pack(listings: Mapping[str, Listing]) -> bytes:
    """Packs listings of folders for other processes."""
    arrays: dict[str, NDArray[Any]] = {}
    for split, listing in listings.items():
        arrays[f"{split} folder"] = np.frombuffer(os.fsencode(listing.store.locate(b"")), np.uint8)
        arrays[f"{split} text"] = np.frombuffer(listing.text, np.uint8)
        arrays[f"{split} ends"] = listing.ends
    return save(arrays)


def _unpack(data: bytes) -> dict[str, Listing]:
    arrays = load(data)
    made = {}
    for split in ("train", "test"):
        folder, text = (arrays[f"{split} {name}"].tobytes() for name in ("folder", "text"))
        made[split] = Listing(Folder(folder), Names.restore(text, arrays[f"{split} ends"]))
    return made


def split_pictures(store: FileStore, paths: Sequence[bytes], test: float) -> dict[str, Listing]:
    """Splits pictures by the hashes of their paths, a share of `test` into the split `test`.

    Raises:
        ValueError: If their folders look like splits.
    """
    check_mixture(paths, store.locate(b""))
    chosen: dict[str, list[bytes]] = {"train": [], "test": []}
    for path in paths:
        share = int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "little") / 2**64
        chosen["test" if share < test else "train"].append(path)
    return {split: Listing(store, names) for split, names in chosen.items()}


def find_classes(listings: Sequence[Listing]) -> tuple[bytes, ...]:
    """Finds the classes: the sorted names of the folders that all pictures are in, or none if fewer than two."""
    names: set[bytes] = set()
    for listing in listings:
        for path in listing:
            name, slash, _ = path.partition(b"/")
            if not slash:
                return ()
            names.add(name)
    return tuple(sorted(names)) if len(names) > 1 else ()


def find_loose(listings: Sequence[Listing]) -> tuple[list[str], list[str]]:
    """Finds the few pictures that are in no folder where all others are in folders, and the names of these.

    Returns:
        Paths of at most a tenth of the pictures, and the folders; both are empty if there are others or none.

    Examples:
        >>> find_loose([Listing(Folder(b"/pictures"), [b"1.png", b"cat/2.png", b"dog/3.png"])])
        (['/pictures/1.png'], ['cat', 'dog'])
    """
    folders: set[bytes] = set()
    loose: list[str] = []
    for listing in listings:
        for row, path in enumerate(listing):
            name, slash, _ = path.partition(b"/")
            if slash:
                folders.add(name)
            elif len(loose) <= _MOST_LOOSE:
                loose.append(listing.get_path(row))
    few = 0 < len(loose) <= max(1, min(_MOST_LOOSE, sum(map(len, listings)) // 10))
    return (loose, sorted(map(os.fsdecode, folders))) if few and len(folders) > 1 else ([], [])


def find_unread(root: str, listings: Sequence[Listing]) -> list[str]:
    """Finds the folders in `root` that are beside those of the splits, and so are not read."""
    if not os.path.isdir(root):
        return []
    read = {os.path.relpath(listing.store.locate(b""), root) for listing in listings}
    if read == {"."}:
        return []
    with os.scandir(root) as entries:
        names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    return sorted({*names} - read)


def number_classes(owner: str, column: str, labels: Sequence[int] | NDArray[np.int64]) -> tuple[str, ...]:
    """Names the classes of labels that are integers from 0: up to the largest.

    Args:
        owner: Name of the data set, for messages.
        column: What the labels are called there.
        labels: The labels of all splits.

    Raises:
        ValueError: If there would be far more classes than pictures, as of identifiers.

    Examples:
        >>> number_classes("Archive", "label", [0, 2])
        ('0', '1', '2')
    """
    highest, most = int(max(labels)), max(_MOST_CLASSES, len(labels))
    if highest >= most:
        raise ValueError(
            f"{owner} expects classes as the {column} of pictures, numbered from 0 to less than {most:,} for "
            f"{len(labels):,} of them, got {highest}"
        )
    return tuple(map(str, range(highest + 1)))


def _walk(folder: bytes, under: bytes, above: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
    """Yields relative paths of the pictures in `folder/under`; links back to a parent (in `above`) are not followed."""
    path = os.path.join(folder, under)
    stat = os.stat(path)
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        return
    with os.scandir(path) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            if entry.is_dir():
                yield from _walk(folder, under + entry.name + b"/", (*above, here))
            elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                yield under + entry.name
