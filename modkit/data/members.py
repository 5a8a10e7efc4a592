"""The members of an archive, `.zip` or `.tar`: where the pictures in it begin, and their labels, found in one pass.

A `.zip` may have EDM's `dataset.json`, `{"labels": [[name, class], …]}`. In a `.tar` named as webdataset's, files of
one sample share a key, the name up to the first dot of its last part: a picture `KEY.jpg` has its class in `KEY.cls`,
or in `KEY.json` under a given name, and beside either `KEY.mask.jpg` is passed over. Where a key has no file with one
dot, its pictures are those of a `.zip`, samples of their own. An archive that is compressed as a whole (`.tar.gz`)
cannot be read at random.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from modkit.data.listing import SUFFIXES

__all__ = ["NONE", "UNKNOWN", "Member", "read_class", "read_members"]

UNKNOWN, NONE = -1, -2
"""Labels of pictures without a class."""

_STORED, _DEFLATED, _ENCRYPTED = 0, 8, 1
_HEAD = struct.Struct("<4s22xHH")  # of a member of a .zip: its signature, and the lengths of its name and extra field
_SIGNATURE = b"PK\3\4"
_LABELS = "dataset.json"
_LARGEST = 2**28  # bytes of a picture, which is read as a whole
_INFLATED = 2**26  # bytes of one that is deflated: an archive a thousandth of that size can hold it
_LARGEST_LABELS = 2**30  # bytes of a file of labels
_SMALL = 2**20  # bytes of the labels of one sample
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, struct.error),
    *(OSError, ValueError, EOFError, OverflowError, MemoryError, KeyError, RuntimeError),
)
"""What reading the list of a damaged archive may raise."""

_logger = logging.getLogger(__name__)


class Member(NamedTuple):
    """A picture in an archive.

    Args:
        name: Its name.
        offset: Where its bytes begin.
        size: Number of its bytes in the archive.
        length: Number of its bytes after inflating them, or -1 if they are not compressed.
        label: Its class, `UNKNOWN` if nothing in the archive tells it, or `NONE` if a file of labels leaves it out.
    """

    name: bytes
    offset: int
    size: int
    length: int = -1
    label: int = UNKNOWN


def read_members(file: BinaryIO, path: str, label: str) -> list[Member]:
    """Reads the list of an archive's pictures.

    Args:
        file: The archive.
        path: Its path, for messages; a name that ends with `.zip` is a ZIP archive, any other a tar archive.
        label: Name of the class in a sample's `.json`.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is damaged, or a member is of a kind that cannot be read at random, is named twice or has a
            label that is no class.
    """
    try:
        members = list(_read_zip(file) if path.lower().endswith(".zip") else _read_tar(file, path, label))
        end = file.seek(0, os.SEEK_END)
        for member in members:
            name = os.fsdecode(member.name)
            if member.offset + member.size > end:
                raise ValueError(f"{name!r} claims {member.size:,} bytes, not all of which are there")
            if member.size > _LARGEST:
                raise ValueError(f"{name!r} has {member.size:,} bytes, expected at most {_LARGEST:,} of a picture")
            if member.length > _INFLATED:
                expected = f"expected at most {_INFLATED:,} of a deflated picture: store it without deflating it"
                raise ValueError(f"{name!r} claims {member.length:,} bytes, {expected}")
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk; see `scan.py`
            raise
        expected = "a whole .zip, or a .tar that is not compressed"
        raise ValueError(f"Archive expects {expected}, in {path!r}: {error}") from error
    if len({member.name for member in members}) < len(members):
        names = sorted(member.name for member in members)
        twice = next(name for name, other in zip(names, names[1:]) if name == other)
        raise ValueError(f"Archive expects each name once in {path!r}, got {os.fsdecode(twice)!r} twice")
    return members


def read_class(files: Mapping[str, bytes], label: str, name: str) -> int | None:
    """Reads the class of a sample from the files beside its picture, by suffix: `cls`, or `label` in `json`.

    Raises:
        ValueError: If it is no integer from 0, or the JSON is damaged; the message begins with `name`.

    Examples:
        >>> read_class({"json": b'{"label": 3}'}, "label", "cat-1"), read_class({}, "label", "cat-1")
        (3, None)
    """
    if "cls" in files:
        return _check_class(_read_number(files["cls"]), name)
    content = _parse(files["json"], name) if "json" in files else None
    return _check_class(content[label], name) if isinstance(content, dict) and label in content else None


def _is_picture(name: str) -> bool:
    """Whether a name is one of a picture, and no part of it is hidden."""
    return os.fsencode(name).lower().endswith(SUFFIXES) and not any(part.startswith(".") for part in name.split("/"))


def _read_zip(file: BinaryIO) -> Iterator[Member]:
    with zipfile.ZipFile(file) as archive:
        labels, absent = _read_labels(archive), NONE if _LABELS in archive.namelist() else UNKNOWN
        for info in archive.infolist():
            if info.is_dir() or not _is_picture(info.filename):
                continue
            if info.flag_bits & _ENCRYPTED or info.compress_type not in (_STORED, _DEFLATED):
                raise ValueError(f"{info.filename!r} is encrypted, or compressed otherwise than by deflating")
            file.seek(info.header_offset)
            signature, name, extra = _HEAD.unpack(file.read(_HEAD.size))
            if signature != _SIGNATURE:
                raise ValueError(f"{info.filename!r} is not where the list of members says")
            offset = info.header_offset + _HEAD.size + name + extra
            length = -1 if info.compress_type == _STORED else info.file_size
            number = labels.get(info.filename, absent)
            yield Member(os.fsencode(info.filename), offset, info.compress_size, length, number)


def _read_labels(archive: zipfile.ZipFile) -> dict[str, int]:
    if _LABELS not in archive.namelist():
        return {}
    if (size := archive.getinfo(_LABELS).file_size) > _LARGEST_LABELS:
        raise ValueError(f"{_LABELS} has {size:,} bytes, expected at most {_LARGEST_LABELS:,}")
    content = _parse(archive.read(_LABELS), _LABELS)
    pairs = content.get("labels") if isinstance(content, dict) else None
    if pairs is not None and not (isinstance(pairs, list) and all(_is_pair(pair) for pair in pairs)):
        raise ValueError(f"{_LABELS} expects pairs of a name and a class under `labels`")
    return {name: _check_class(number, name) for name, number in pairs or ()}


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)


def _read_tar(file: BinaryIO, path: str, label: str) -> Iterator[Member]:
    found: list[Member] = []
    samples: set[str] = set()  # keys of files with one dot, beside which others are no pictures of their own
    sparse: set[str] = set()
    labels: dict[str, int] = {}
    with tarfile.open(fileobj=file, mode="r:") as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            name = member.name.removeprefix("./")
            key, suffix = _split_name(name)
            if not member.isreg():
                continue
            if "." not in suffix:
                samples.add(key)
            if _is_picture(name):
                if member.issparse():
                    sparse.add(name)
                found.append(Member(os.fsencode(name), member.offset_data, member.size))
            elif suffix in ("cls", "json"):
                number = read_class({suffix: _read_small(archive, member)}, label, name)
                if number is not None and (suffix == "cls" or key not in labels):
                    labels[key] = number
    passed: list[str] = []
    for picture in found:
        name = os.fsdecode(picture.name)
        key, suffix = _split_name(name)
        if "." in suffix and key in samples:
            passed.append(name)
        elif name in sparse:
            raise ValueError(f"{name!r} is a sparse file, which cannot be read at random")
        else:
            yield picture._replace(label=labels.get(key, UNKNOWN))
    if passed:
        _logger.warning(
            "%s: passed over pictures such as %r, %d in all, which by webdataset's names belong to other files of "
            "their samples; put pictures with dots in their names into a .zip",
            *(path, passed[0], len(passed)),
        )


def _split_name(name: str) -> tuple[str, str]:
    """Splits a name into its sample's key and its suffix, at the first dot of its last part."""
    head, slash, tail = name.rpartition("/")
    key, _, suffix = tail.partition(".")
    return head + slash + key, suffix


def _read_small(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > _SMALL:
        raise ValueError(f"{member.name!r} has {member.size:,} bytes, expected at most {_SMALL:,}")
    file = archive.extractfile(member)
    return file.read() if file else b""


def _read_number(content: bytes) -> int | str:
    text = content.decode(errors="replace").strip()
    return int(text) if text.isdecimal() else text


def _parse(content: bytes, name: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name!r} is no JSON: {error}") from error


def _check_class(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < 2**31:
        raise ValueError(f"{name!r} expects a class, an integer from 0, got {str(value)[:40]!r}")
    return value
