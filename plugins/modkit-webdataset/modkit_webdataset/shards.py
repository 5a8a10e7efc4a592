"""Tar shards: how they are named, opened and read from one end to the other.

webdataset opens URLs and groups the members of a sample; what is in them is left as bytes, since its decoders unpickle
and its `pipe:` URLs run commands.
"""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

from braceexpand import braceexpand
from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys

from modkit.data.listing import SUFFIXES
from modkit.runs.files import open_regular

__all__ = ["find_picture", "list_shards", "read_shard"]

_REMOTE = ("http", "https", "gs", "hf")
_PICTURES = tuple(os.fsdecode(suffix[1:]) for suffix in SUFFIXES)
_LARGEST = 2**30  # bytes of a member


def list_shards(patterns: str | Sequence[str]) -> list[str]:
    """Lists the shards that paths or URLs name, with braces (`{000..099}`) and, for paths, `*`, `?` and `[…]`.

    Raises:
        ValueError: If a path matches no file, a URL is of another scheme than http, https, gs and hf, or a shard is
            named twice.

    Examples:
        >>> list_shards("https://example.org/train-{0..1}.tar")
        ['https://example.org/train-0.tar', 'https://example.org/train-1.tar']
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns
    found = [shard for pattern in patterns for one in braceexpand(pattern) for shard in _match(one)]
    if not found or len(set(found)) < len(found):
        raise ValueError(f"Stream expects shards, each named once, got {found[:3]} of {list(patterns)}")
    return found


def read_shard(shard: str) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yields the samples of a shard: where each is, and its files by suffix, of pictures, `cls` and `json` alone.

    Members of one sample follow one another and share a key, their name up to the first dot of its last part.

    Raises:
        OSError: If it cannot be opened or read.
        ValueError: If it is damaged, or a member is larger than 1 GiB or named twice.
    """
    try:
        with _open(shard) as file, tarfile.open(fileobj=file, mode="r|*") as archive:
            for sample in group_by_keys(_read_members(archive, shard)):
                place = f"{shard}/{sample.pop('__key__')}"
                yield place, sample
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ValueError(f"Stream expects a whole tar archive, in {shard!r}: {error.args[0]}") from error


def find_picture(files: Mapping[str, bytes]) -> bytes | None:
    """Finds the picture among the files of a sample."""
    return next((value for suffix, value in files.items() if suffix in _PICTURES), None)


def _match(shard: str) -> list[str]:
    scheme = urlsplit(shard).scheme
    if scheme in _REMOTE:
        return [shard]
    if scheme:
        raise ValueError(f"Stream expects paths, or URLs of {', '.join(_REMOTE)}, got {shard!r}")
    matched = sorted(glob.glob(shard))
    if not matched:
        raise ValueError(f"Stream expects shards, got no file {shard!r}")
    return matched


def _open(shard: str) -> AbstractContextManager[Any]:
    return gopen(shard, "rb") if urlsplit(shard).scheme else open_regular(shard)


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
