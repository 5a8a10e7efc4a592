"""A cache of reference statistics: values of the real data that metrics use, computed once.

Each entry is a safetensors file. Its name is the hash of its description, which the file contains in full:

    folder/DIGEST.safetensors     tensors;  metadata: description (JSON), sha256 of the tensors

An entry is written to a temporary file and renamed, so a reader finds it complete or not at all. An entry whose
description or content does not match its name is never used or overwritten; the error names its file. Where the folder
cannot be read or written, statistics are computed each time.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from modkit.features.weight_file import hash_tensors, read_bytes
from modkit.runs.cache import find_cache_folder
from modkit.runs.files import hash_data, replace_file
from modkit.types import PositiveInt, checked

__all__ = ["Reference", "ReferenceCache"]

_logger = logging.getLogger(__name__)

_FORMAT = 1
_HEADER_LIMIT = 2**24


@checked
@dataclass(frozen=True)
class Reference:
    """Describes statistics: equal descriptions have equal statistics.

    Args:
        data: Key of the data set (`Data.key`).
        split: Name of the split.
        features: Key of the extractor (`FeatureExtractor.key()`), and a hash of its code.
        preprocessing: How the images were processed beforehand: resizing, rounding, and so on.
        count: Number of samples, counted from the start of the split.
        statistics: Kind of the tensors, such as `moments` or `features`.

    Raises:
        ValueError: If a text is empty or `count` is below 1.
    """

    data: str
    split: str
    features: str
    preprocessing: str
    count: PositiveInt
    statistics: str = "moments"

    def __post_init__(self) -> None:
        empty = [name for name, value in asdict(self).items() if name != "count" and not value]
        if empty:
            raise ValueError(f"Reference expects texts, got none for {', '.join(empty)}")

    @property
    def digest(self) -> str:
        """Hash of the whole description."""
        return hash_data(self.text)[:32]

    @property
    def text(self) -> str:
        """The description as canonical JSON."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, sort_keys=True)


class ReferenceCache:
    """Reference statistics in a folder.

    Args:
        folder: The folder, created by the first `save`; None is `references` in modkit's cache folder.

    Examples:
        >>> import tempfile, torch
        >>> cache = ReferenceCache(Path(tempfile.mkdtemp()))
        >>> reference = Reference("key", "train", "pixels", "none", 2)
        >>> cache.load(reference) is None
        True
        >>> cache.get(reference, lambda: {"mean": torch.ones(1)})["mean"]
        tensor([1.])
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = find_cache_folder() / "references" if folder is None else folder

    def locate(self, reference: Reference) -> Path:
        """The path of an entry's file."""
        return self.folder / f"{reference.digest}.safetensors"

    def load(self, reference: Reference) -> dict[str, Tensor] | None:
        """Loads the statistics to the CPU; returns None if there is no entry.

        Raises:
            ValueError: If the file is damaged, is not a safetensors file, or has another description; the message names
                it.
        """
        path = self.locate(reference)
        if not os.path.exists(path):  # false too, unlike `path.exists()`, in a folder that must not be searched
            return None
        data = read_bytes("ReferenceCache", path, limit=2**40)
        try:
            metadata, tensors = _read_metadata(data), safetensors.torch.load(data)
        except Exception as error:  # a forged header may provoke anything
            raise ValueError(f"ReferenceCache expects a safetensors file, got {path}: {error}; remove it") from error
        if metadata.get("description") != reference.text:
            received = metadata.get("description")
            raise ValueError(f"ReferenceCache expects {reference.text} in {path}, got {received}; remove it")
        if metadata.get("sha256") != hash_tensors(tensors):
            raise ValueError(f"ReferenceCache expects {path} to have the SHA-256 that it states: damaged; remove it")
        return tensors

    def save(self, reference: Reference, tensors: Mapping[str, Tensor]) -> Path:
        """Writes the statistics; an entry with the same description is replaced as a whole.

        Raises:
            ValueError: If there are no tensors.
        """
        if not tensors:
            raise ValueError("ReferenceCache expects one or more tensors to save, got none")
        kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        metadata = {"description": reference.text, "sha256": hash_tensors(kept)}
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(self.locate(reference), safetensors.torch.save(kept, metadata))
        return self.locate(reference)

    def try_save(self, reference: Reference, tensors: Mapping[str, Tensor]) -> None:
        """Saves the statistics; logs a warning if the folder cannot be written or the disk is full.

        Raises:
            ValueError: If there are no tensors.
        """
        try:
            self.save(reference, tensors)
        except OSError as error:
            what = f"{reference.statistics} of {reference.split}"
            _logger.warning("%s cannot be written, so that %s will be computed again: %s", self.folder, what, error)

    def get(self, reference: Reference, compute: Callable[[], Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Loads the statistics or, if there is no entry, computes them and saves them if it can.

        Raises:
            ValueError: Under the conditions of `load` and `save`.
        """
        if (kept := self.load(reference)) is not None:
            return kept
        made = {name: value.detach().cpu().clone() for name, value in compute().items()}
        self.try_save(reference, made)
        return made


def _read_metadata(data: bytes) -> Mapping[str, str]:
    """Reads the metadata of a safetensors file: 8 bytes of length, then a JSON header."""
    size = int.from_bytes(data[:8], "little")
    if not 0 < size <= min(_HEADER_LIMIT, len(data) - 8):
        raise ValueError(f"its header states a length of {size} bytes")
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are not a dict")
    return metadata
