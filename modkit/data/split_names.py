"""Names of folders that are splits of pictures, and names that only look like it.

A folder `train` or `training` and one of those below, in any case, are the splits; the first of the others that is
there is the test split:

    test testing val validation valid eval evaluation dev

Other names with such words, as `trainA` and `testA` or `train_images` and `val_images`, may be splits or classes. Taken
for classes, the test pictures would be trained on, so they are refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

__all__ = ["check_mixture", "choose_folders"]

_TRAIN = ("train", "training")
_HELD_OUT = ("test", "testing", "val", "validation", "valid", "eval", "evaluation", "dev")
_WORDS = {  # what looks like a split, with the split that it looks like
    **dict.fromkeys((*_TRAIN, "trainset"), "train"),
    **dict.fromkeys(("test", "testing", "testset"), "test"),
    **dict.fromkeys((*_HELD_OUT[2:], "valset", "devset"), "val"),
}
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^A-Za-z]+")
_ADVICE = (
    "name them `train` and `test` and put them directly into the root, give one of them as the root, or rename "
    "them if they are classes"
)


def choose_folders(folders: Iterable[str], place: str) -> dict[str, str]:
    """Chooses the folders that are the splits `train` and `test`, or none.

    Args:
        folders: Names of the folders that there are.
        place: Where they are, for messages.

    Raises:
        ValueError: If two of them are the same split.

    Examples:
        >>> choose_folders(["Train", "Validation", "notes"], "/photos")
        {'train': 'Train', 'test': 'Validation'}
        >>> choose_folders(["cat", "dog"], "/photos")
        {}
    """
    named: dict[str, list[str]] = {}
    for folder in sorted(folders):
        named.setdefault(folder.casefold(), []).append(folder)
    train = [folder for word in _TRAIN for folder in named.get(word, ())]
    held_out = next((named[word] for word in _HELD_OUT if word in named), [])
    if not train or not held_out:
        return {}
    for found in (train, held_out):
        if len(found) > 1:
            listed = " and ".join(map(repr, found))
            raise ValueError(
                f"Pictures expects one folder of each split in {place!r}, got {listed}: rename one of them"
            )
    return {"train": train[0], "test": held_out[0]}


def check_mixture(paths: Sequence[bytes], place: str) -> None:
    """Checks that pictures of one split are not in folders that look like several, at the first or second level.

    Args:
        paths: The pictures' paths.
        place: Where they are, for messages.

    Raises:
        ValueError: If they are.

    Examples:
        >>> check_mixture([b"train/1.png", b"bus/2.png"], "/vehicles")
        >>> check_mixture([b"trainA/1.png", b"testA/2.png"], "/photos")
        Traceback (most recent call last):
        ValueError: Pictures expects folders `train` and `test` as the splits, got 'trainA' and 'testA' in '/photos'...
    """
    levels: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})  # names of folders, with the path of one
    for path in paths:
        first, *rest = path.split(b"/", 2)
        if rest:
            levels[0].setdefault(first, first)
        if len(rest) > 1:
            levels[1].setdefault(rest[0], first + b"/" + rest[0])
    for level in levels:
        if found := _find_mixed({os.fsdecode(name): os.fsdecode(path) for name, path in level.items()}):
            raise ValueError(
                f"Pictures expects folders `train` and `test` as the splits, got {' and '.join(map(repr, found))} in "
                f"{place!r}, all of which would be trained on: {_ADVICE}"
            )


def _find_mixed(folders: dict[str, str]) -> list[str]:
    """Finds folders that look like different splits: such that differ in the split's name only, or if all look so."""
    seen: dict[str, dict[str, str]] = {}  # by the rest of the name, the splits that there are
    for name, path in folders.items():
        split, rest = _parse(name)
        if split:
            seen.setdefault(rest, {}).setdefault(split, path)
    alike = next((found for found in seen.values() if len(found) > 1), {})
    if not alike and all(_parse(name)[0] for name in folders):
        alike = {split: path for found in seen.values() for split, path in found.items()}
    return [alike[split] for split in ("train", "test", "val") if split in alike] if len(alike) > 1 else []


def _parse(name: str) -> tuple[str, str]:
    """Parses a folder's name: the split that a word of it means, if any, and the letters of the rest.

    Examples:
        >>> _parse("trainA"), _parse("val_2017"), _parse("latest")
        (('train', 'a'), ('val', ''), ('', 'latest'))
    """
    words = [word.casefold() for word in _TOKEN.findall(name) if word.isalpha()]
    split = next((_WORDS[word] for word in words if word in _WORDS), "")
    return split, " ".join(word for word in words if _WORDS.get(word) != split or not split)
