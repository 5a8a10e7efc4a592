"""The scan of a store of pictures: each is decoded once, before anything is trained, and what is damaged is skipped.

Whether a picture is whole shows only when all of it is decoded. That is done in the pass that hashes contents, by
several threads, and kept with the hashes (`modkit.data.file_hashes`): a store that has not changed is not decoded
again, only its files' sizes and time stamps are looked at. JPEG files are decoded at an eighth of their size, which
reads all of their data at a fraction of the cost.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from modkit.data.channels import convert_picture, count_channels
from modkit.data.file_hashes import Inspected, inspect_files
from modkit.data.listing import Listing
from modkit.data.picture import DAMAGE, read_picture
from modkit.runs.cache import compute_once

__all__ = ["Scan", "hash_pictures", "inspect_picture", "list_skipped", "scan_pictures"]

_NAMED = 3  # pictures that a message names

_logger = logging.getLogger(__name__)
_shown: set[str] = set()


class Scan(NamedTuple):
    """What a scan found.

    Args:
        listings: The pictures that are whole, by split.
        skipped: Why others are skipped, by their paths below the root.
        counts: Number of whole pictures by the channels that they need, see `modkit.data.channels.count_channels`.
        digest: Hash of the paths and contents of all pictures, 16 bytes.
        copies: Number of whole test pictures whose file is one of the training pictures' as well.
        copy: Paths of such a test picture and of the training picture, below their splits; empty if there is none.
    """

    listings: dict[str, Listing]
    skipped: dict[str, str]
    counts: Counter[int]
    digest: bytes
    copies: int = 0
    copy: tuple[str, ...] = ()


def scan_pictures(listings: Mapping[str, Listing], root: str, damaged: float, owner: str = "ImageFolder") -> Scan:
    """Scans pictures; if any are skipped, a notice counts them and names the first, once.

    Args:
        listings: The pictures, by split.
        root: The folder or archive that they are in.
        damaged: Largest share of them that may be damaged.
        owner: Class of the data set, for messages.

    Raises:
        ValueError: If more are damaged; the message counts them and names the first.
        OSError: If a file cannot be opened or read.
    """
    found = json.loads(compute_once(_name("checking", listings, root), lambda: _check(listings)))
    faults = {split: {os.fsencode(path): fault for path, fault in each.items()} for split, each in found["faults"]}
    skipped = {
        os.path.relpath(listings[split].store.locate(path), root): fault
        for split, each in faults.items()
        for path, fault in each.items()
    }
    if skipped:
        _report(skipped, sum(map(len, listings.values())), root, damaged, owner)
        listings = {
            split: Listing(listing.store, [path for path in listing if path not in faults[split]])
            for split, listing in listings.items()
        }
    counts, digest = Counter[int](dict(found["counts"])), bytes.fromhex(found["digest"])
    return Scan(dict(listings), skipped, counts, digest, found["copies"], tuple(found["copy"]))


def hash_pictures(listings: Mapping[str, Listing], root: str) -> bytes:
    """Hashes the paths and contents of pictures below `root` as `scan_pictures` does, without decoding any.

    Raises:
        OSError: If a file cannot be opened or read.
    """

    def compute() -> bytes:
        digest = _start_digest()
        for split, path, found in _inspect(listings, None):
            digest.update(_describe(split, path, found))
        return digest.digest()

    return compute_once(_name("hashing", listings, root), compute)


def inspect_picture(file: BinaryIO) -> int:
    """Decodes a picture; returns the number of channels that it needs, 1 to 4.

    Raises:
        ValueError: If it is damaged, or of a kind that cannot be read.
        OSError: If the file cannot be read.
    """
    try:
        with read_picture(file) as image:
            image.draft(None, (1, 1))  # a JPEG decoder reads everything, but computes an eighth of the pixels a side
            pixel = ImageOps.exif_transpose(image).resize((1, 1), Image.Resampling.NEAREST)
            convert_picture(pixel, 3, (0, 0, 0))  # refuses some modes
            return count_channels(image)
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # of the disk; EINVAL is seeking to where a damaged file says
            raise
        raise ValueError(str(error)) from error
    except DAMAGE as error:
        raise ValueError(str(error) if isinstance(error, ValueError) else repr(error)) from error


def _check(listings: Mapping[str, Listing]) -> bytes:
    """Inspects pictures; returns the faults of the damaged ones, the counts of the others and the digest, as JSON."""
    digest, counts = _start_digest(), Counter[int]()
    faults: dict[str, dict[str, str]] = {split: {} for split in listings}
    heads = {split: array("Q") for split in listings}  # of the hashes of contents; 0 is of damaged ones
    for split, path, found in _inspect(listings, inspect_picture):
        digest.update(_describe(split, path, found))
        heads[split].append(0 if found.fault else int.from_bytes(found.digest[:8], "little"))
        if found.fault:
            faults[split][os.fsdecode(path)] = found.fault
        else:
            counts[found.kind] += 1
    made = {"faults": list(faults.items()), "counts": list(counts.items()), "digest": digest.hexdigest()}
    return json.dumps({**made, **_find_copies(listings, heads)}).encode()


def _find_copies(listings: Mapping[str, Listing], heads: Mapping[str, array[int]]) -> dict[str, Any]:
    """Finds test pictures with the content of a training picture, by the first eight bytes of its hash."""
    train, test = (np.frombuffer(heads[split], np.uint64) for split in ("train", "test"))
    rows = np.flatnonzero(np.isin(test, train) & (test != 0))
    if not len(rows):
        return {"copies": 0, "copy": []}
    other = int(np.flatnonzero(train == test[rows[0]])[0])
    pair = (listings["test"][int(rows[0])], listings["train"][other])
    return {"copies": len(rows), "copy": [os.fsdecode(path) for path in pair]}


def _name(doing: str, listings: Mapping[str, Listing], root: str) -> str:
    """Names what is done with pictures, for the processes that wait for it."""
    counts = ", ".join(f"{len(listing):,} in {split}" for split, listing in listings.items())
    return f"{doing} the pictures in {os.path.realpath(root)!r}, {counts}"


def _inspect(
    listings: Mapping[str, Listing], inspect: Callable[[BinaryIO], int] | None
) -> Iterator[tuple[str, bytes, Inspected]]:
    """Yields the split, the path and what was found of each picture; splits of one store share a pass."""
    for store in dict.fromkeys(listing.store for listing in listings.values()):
        splits = {split: listing for split, listing in listings.items() if listing.store == store}
        paths = [path for listing in splits.values() for path in listing]
        found = inspect_files(store, paths, inspect)
        for split, listing in splits.items():
            yield from ((split, path, one) for path, one in zip(listing, islice(found, len(listing)), strict=True))
        next(found, None)  # ends the pass, which keeps what it found


def _start_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=16)


def _describe(split: str, path: bytes, found: Inspected) -> bytes:
    return f"{split} {len(path)} ".encode() + path + found.digest


def list_skipped(skipped: Mapping[str, str]) -> str:
    """Lists the first three pictures that are skipped, with their reasons.

    Examples:
        >>> list_skipped({"a.png": "truncated"})
        "'a.png' (truncated)"
    """
    named = ", ".join(f"{path!r} ({reason})" for path, reason in islice(skipped.items(), _NAMED))
    rest = len(skipped) - _NAMED
    return f"{named} and {rest:,} more" if rest > 0 else named


def _report(skipped: Mapping[str, str], total: int, root: str, damaged: float, owner: str) -> None:
    """Refuses too many damaged pictures, or says that they are skipped."""
    num, listed = len(skipped), list_skipped(skipped)
    if num > damaged * total:
        raise ValueError(
            f"{owner} expects at most a share of damaged={damaged:g} of the pictures in {root!r} to be damaged, "
            f"got {num:,} of {total:,} ({num / total:.3g}): {listed}; remove them, or set a larger share"
        )
    message = f"{num:,} of {total:,} pictures in {root!r} are damaged and skipped: {listed}"
    if message not in _shown:
        _shown.add(message)
        _logger.warning("%s", message)
