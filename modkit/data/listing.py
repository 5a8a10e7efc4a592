"""The pictures in a folder or other store, with their splits and classes.

If both `root/train` and `root/test` exist, they are the splits; where there is no `root/test`, `root/val`,
`root/validation` or `root/valid` is the test split. Otherwise a picture belongs to it if the hash of its relative path
is below `test`, so adding pictures moves no other picture. If every picture is in a subfolder of its split, and there
are at least two such subfolders, their sorted names are the classes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load, save
from torch import Tensor

from modkit.data.names import Names
from modkit.data.store import Folder, Store
from modkit.runs.cache import compute_once

__all__ = ["SUFFIXES", "Listing", "choose_folders", "find_classes", "list_pictures", "number_classes", "split_pictures"]

_MOST_CLASSES = 10_000  # of few pictures; ImageNet-21K has 21,841 of 14 million
SUFFIXES = (b".png", b".jpg", b".jpeg", b".webp", b".bmp", b".tif", b".tiff", b".gif", b".ppm", b".pgm")
"""How the names of pictures end, in lower case."""

_HELD_OUT = ("test", "val", "validation", "valid")
"""Names of the folder of the test split; the first that is there is it."""


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

    def __init__(self, store: Store, paths: Sequence[bytes]) -> None:
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
        ValueError: If there is no such folder.
    """
    folder = os.fsencode(root)
    if not os.path.isdir(folder):
        raise ValueError(f"ImageFolder expects a folder, got {root!r}")
    name = f"listing the pictures in {os.path.realpath(root)!r}, {test} of them for testing"
    return _unpack(compute_once(name, lambda: _pack(_list_splits(folder, test))))


def choose_folders(has: Callable[[str], bool]) -> dict[str, str]:
    """Chooses the folders that are the splits `train` and `test`, or none.

    Args:
        has: Whether there is a folder of a name.

    Examples:
        >>> choose_folders(lambda name: name in ("train", "val"))
        {'train': 'train', 'test': 'val'}
        >>> choose_folders(lambda name: name in ("cat", "dog"))
        {}
    """
    held_out = next(filter(has, _HELD_OUT), None) if has("train") else None
    return {"train": "train", "test": held_out} if held_out else {}


def _list_splits(folder: bytes, test: float) -> dict[str, Listing]:
    chosen = choose_folders(lambda name: os.path.isdir(os.path.join(folder, name.encode())))
    if own := {split: os.path.join(folder, name.encode()) for split, name in chosen.items()}:
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


def split_pictures(store: Store, paths: Sequence[bytes], test: float) -> dict[str, Listing]:
    """Splits pictures by the hashes of their paths, a share of `test` into the split `test`."""
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
