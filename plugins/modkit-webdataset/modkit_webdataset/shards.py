"""Tar shards: how they are named, opened and read from one end to the other.

webdataset opens URLs and groups the members of a sample. Members are left as bytes, since its decoders unpickle. Files
are opened here: to webdataset, a file named `pipe:…` is a command to run.
"""

from __future__ import annotations

import glob
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from braceexpand import braceexpand
from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys

from modkit.data.listing import SUFFIXES
from modkit.runs.files import open_regular

__all__ = ["Shard", "find_picture", "list_shards", "read_shard"]

_REMOTE = ("http", "https", "gs", "hf")
_PICTURES = tuple(os.fsdecode(suffix[1:]) for suffix in SUFFIXES)
_LARGEST = 2**30  # bytes of a member
_MOST = 10**6  # shards
_BRACES = re.compile(r"\{([^{}]*)\}")
_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z](?:\.\.-?\d+)?")
_COUNT = re.compile(r"\0(\d+)\0")  # takes the place of braces that have been counted


class Shard(NamedTuple):
    """A shard: the path of a file or, if `remote`, a URL."""

    name: str
    remote: bool


def list_shards(patterns: str | Sequence[str]) -> list[Shard]:
    """Lists the shards that paths or URLs name, with braces (`{000..099}`) and, for paths, `*`, `?` and `[…]`.

    Raises:
        ValueError: If a path matches no file, a URL is of another scheme than http, https, gs and hf, a shard is named
            twice, or braces stand for more than a million shards.

    Examples:
        >>> [shard.name for shard in list_shards("https://example.org/train-{0..1}.tar")]
        ['https://example.org/train-0.tar', 'https://example.org/train-1.tar']
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    for pattern in patterns:  # braceexpand keeps whole ranges in memory
        if (num := _count(pattern)) > _MOST:
            raise ValueError(f"Stream expects at most {_MOST:,} shards, got {num:,} in {pattern!r}")
    found = [shard for pattern in patterns for one in braceexpand(pattern) for shard in _match(one)]
    if not found or len(set(found)) < len(found):
        names = [shard.name for shard in found[:3]]
        raise ValueError(f"Stream expects shards, each named once, got {names} of {list(patterns)}")
    return found


def read_shard(shard: Shard) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yields the samples of a shard: where each is, and its files by suffix, only of pictures, `cls` and `json`.

    Members of one sample follow one another and share a key, their name up to the first dot of its last part.

    Raises:
        OSError: If it cannot be opened or read.
        ValueError: If it is damaged, or a member is larger than 1 GiB or named twice.
    """
    try:
        with _open(shard) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for sample in group_by_keys(_read_members(archive, shard.name)):
                place = f"{shard.name}/{sample.pop('__key__')}"
                yield place, sample
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ValueError(f"Stream expects a whole tar archive, in {shard.name!r}: {error.args[0]}") from error


def find_picture(files: Mapping[str, bytes]) -> bytes | None:
    """Finds the picture among the files of a sample."""
    return next((value for suffix, value in files.items() if suffix in _PICTURES), None)


def _count(pattern: str) -> int:
    """Counts what the braces of a pattern stand for: alternatives add up, neighbours multiply."""
    pattern = re.sub(r"\\.|\0", "/", pattern)  # stand for themselves
    while braces := _BRACES.search(pattern):
        inside = braces[1]
        if numbers := _NUMBERS.fullmatch(inside):
            first, last, step = (int(number or 1) for number in numbers.groups())
            num = abs(last - first) // max(step, 1) + 1
        elif _LETTERS.fullmatch(inside):
            num = len(list(braceexpand(braces[0])))
        else:
            num = sum(map(_multiply, inside.split(",")))
        pattern = f"{pattern[: braces.start()]}\0{num}\0{pattern[braces.end() :]}"
    return _multiply(pattern)


def _multiply(pattern: str) -> int:
    return prod(map(int, _COUNT.findall(pattern)))


def _match(name: str) -> list[Shard]:
    """Lists the files that a path matches, or a URL; what a matched file is called makes no URL of it."""
    scheme = urlsplit(name).scheme
    if scheme in _REMOTE:
        return [Shard(name, remote=True)]
    if scheme:
        raise ValueError(f"Stream expects paths, or URLs of {', '.join(_REMOTE)}, got {name!r}")
    matched = [Shard(path, remote=False) for path in sorted(glob.glob(name))]
    if not matched:
        raise ValueError(f"Stream expects shards, got no file {name!r}")
    return matched


def _open(shard: Shard) -> AbstractContextManager[Any]:
    return gopen(shard.name, "rb") if shard.remote else open_regular(shard.name)


def _read_members(archive: tarfile.TarFile, shard: str) -> Iterator[dict[str, Any]]:
    """Yields what webdataset groups: the members that are read, in their order."""
    for member in archive:
        archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
        name = member.name.removeprefix("./")
        hidden = any(part.startswith(".") for part in name.split("/"))
        suffix = name.rpartition("/")[2].partition(".")[2].lower()
        if not member.isreg() or hidden or suffix not in (*_PICTURES, "cls", "json"):
            continue
        if member.size > _LARGEST or member.issparse():
            raise ValueError(f"{name!r} has {member.size:,} bytes or is sparse, expected at most {_LARGEST:,} bytes")
        file = archive.extractfile(member)
        yield {"fname": name, "data": file.read() if file else b"", "__url__": shard}
