"""Torchvision's data sets by name: MNIST, CIFAR-10, CelebA and others, read and downloaded by torchvision's classes.

    x = resize(square(pixels) / 127.5 - 1)        pixels 0..255

Torchvision knows the MD5 of every file of CIFAR, SVHN and STL10, and of CelebA's lists, and reads none that has another
one. That is what makes CIFAR's files safe, which are pickles: nobody knows how to make another file with a given MD5.
The other formats hold no code: IDX (MNIST and its kin), MATLAB's (SVHN), bytes (STL10), and JPEG files (CelebA), which
are decoded as in `image-folder`.

Shape letters: b batch, c channels, h w spatial, n samples.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modkit.data.file_hashes import hash_files
from modkit.data.moments import measure_std
from modkit.data.picture import DAMAGE, open_picture
from modkit.data.resize import is_exact, resize
from modkit.data.splits import check_split, hash_contents
from modkit.rng import Rng
from modkit.runs.cache import compute_once
from modkit.types import Batch, PositiveInt, TensorType, checked

__all__ = ["Name", "TorchvisionSet"]

Name: TypeAlias = Literal["MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "CIFAR100", "SVHN", "STL10", "CelebA"]

_CLASSES = {**dict.fromkeys(("MNIST", "FashionMNIST", "KMNIST", "CIFAR10", "SVHN", "STL10"), 10), "CIFAR100": 100}
_SPLITS = ("train", "test")
_BY_SPLIT = ("SVHN", "STL10", "CelebA")
"""Those whose classes take `split`; the others take `train`."""


@checked
class TorchvisionSet:
    """A data set of torchvision, `b c size size` in [-1, 1], with the field `labels` (`b`) if it has classes.

    | `dataset` | samples | in training, for testing | classes |
    | --- | --- | --- | --- |
    | `MNIST`, `FashionMNIST`, `KMNIST` | 1×28×28 | 60,000, 10,000 | 10 |
    | `CIFAR10`, `CIFAR100` | 3×32×32 | 50,000, 10,000 | 10, 100 |
    | `SVHN` | 3×32×32 | 73,257, 26,032 | 10 |
    | `STL10` | 3×96×96 | 5,000, 8,000 | 10 |
    | `CelebA` | 3×178×178, the centre of 218×178 | 162,770, 19,962 | none |

    Args:
        dataset: Name of the data set.
        root: Folder that torchvision downloads to.
        size: Height and width; None leaves the pictures as they are. Others are resized bilinearly (antialiased if they
            shrink), except that those of 28×28 get two black pixels on each side for a size of 32.
        download: Whether to download what is missing; of the processes of a launch, one does.

    Raises:
        ValueError: If torchvision is not installed, files are missing, damaged or not the published ones, or `size` is
            below 1.

    Examples:
        Two pictures of MNIST, written as torchvision keeps them:

        >>> import struct, tempfile
        >>> from pathlib import Path
        >>> from modkit import Rng
        >>> root = Path(tempfile.mkdtemp())
        >>> (root / "MNIST" / "raw").mkdir(parents=True)
        >>> for name in ("train", "t10k"):
        ...     path, head = root / "MNIST" / "raw" / f"{name}-images-idx3-ubyte", struct.pack(">4I", 2051, 2, 28, 28)
        ...     _ = path.write_bytes(head + bytes(2 * 28 * 28))
        ...     _ = path.with_name(f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 2) + bytes([0, 1]))
        >>> data = TorchvisionSet(dataset="MNIST", root=str(root), size=32)
        >>> data.splits, data.read("train", [1], Rng(0)).tensor.shape
        ({'train': 2, 'test': 2}, torch.Size([1, 1, 32, 32]))
    """

    def __init__(
        self, *, dataset: Name = "MNIST", root: str = "data", size: PositiveInt | None = None, download: bool = False
    ) -> None:
        if download:
            _download(dataset, root)
        self._samples = {split: _load(dataset, split, root) for split in _SPLITS}
        self._name = dataset
        shape = self._samples["train"].pixels.shape
        self._size = size or min(shape[2:])
        self._shape = (shape[1], self._size, self._size)
        self.splits = {split: samples.pixels.shape[0] for split, samples in self._samples.items()}
        self.levels = 256 if is_exact(min(shape[2:]), self._size) else None
        self.fields = {"labels": TensorType((), classes=_CLASSES[dataset])} if dataset in _CLASSES else {}

    @cached_property
    def x(self) -> TensorType:
        """The type of a picture, whose deviation is measured when it is first asked for."""
        return TensorType(self._shape, range=(-1.0, 1.0), std=measure_std(self))

    @cached_property
    def key(self) -> str:
        """Hash of the name, pictures, labels and size."""
        pieces = [piece for samples in self._samples.values() for piece in (samples.pixels.hash(), samples.hash())]
        return hash_contents("torchvision", self._name, self._size, *pieces)

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the samples at `indices`; there is no augmentation, so `rng` is not used.

        Raises:
            ValueError: If there is no such split, or a picture is damaged or missing.
        """
        check_split(self, split)
        samples, rows = self._samples[split], torch.as_tensor(indices, dtype=torch.long)
        x = resize(samples.pixels.read(rows), self._size)
        return Batch(x, {} if samples.labels is None else {"labels": samples.labels[rows]})


class _Bytes:
    """Pictures in memory, uint8 `n c h w`."""

    def __init__(self, pixels: Tensor) -> None:
        self._pixels = pixels
        self.shape = tuple(pixels.shape)

    def read(self, rows: Tensor) -> Tensor:
        return self._pixels[rows]

    def hash(self) -> bytes:
        return hashlib.blake2b(np.ascontiguousarray(self._pixels.numpy()).data).digest()


class _Files:
    """JPEG files of one size in a folder, decoded when they are read."""

    def __init__(self, folder: str, names: Sequence[str], sides: tuple[int, int]) -> None:
        self._folder, self._names, self._sides = folder, names, sides
        self.shape = (len(names), 3, *sides)

    def read(self, rows: Tensor) -> Tensor:
        pixels = np.empty((len(rows), *self._sides, 3), dtype=np.uint8)
        for row, index in enumerate(rows.tolist()):
            path = os.path.join(self._folder, self._names[index])
            try:
                with open_picture(path) as image:
                    pixels[row] = np.asarray(image.convert("RGB"))
            except DAMAGE as error:
                raise ValueError(f"TorchvisionSet expects a whole picture in {path!r}, got {error!r}") from error
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def hash(self) -> bytes:
        return b"".join(hash_files(os.fsencode(self._folder), [os.fsencode(name) for name in self._names]))


class _Samples(NamedTuple):
    """The pictures of a split, and their labels, `n`, if there are classes."""

    pixels: _Bytes | _Files
    labels: Tensor | None

    def hash(self) -> bytes:
        return b"" if self.labels is None else self.labels.numpy().tobytes()


def _download(name: str, root: str) -> None:
    """Downloads what is missing, in one process at a time: several would write into the same files."""

    def download() -> bytes:
        for split in _SPLITS:
            _load(name, split, root, download=True)
        return b""

    compute_once(f"downloading {name} to {os.path.realpath(root)!r}", download)


def _load(name: str, split: str, root: str, *, download: bool = False) -> _Samples:
    """Loads a split by torchvision's class."""
    try:
        datasets = importlib.import_module("torchvision.datasets")
    except ImportError as error:
        advice = "pip install 'modkit-generative[torchvision]'"
        raise ValueError(f"TorchvisionSet expects torchvision: {advice} ({error})") from error
    chosen: Mapping[str, Any] = {"split": split} if name in _BY_SPLIT else {"train": split == "train"}
    try:
        made = getattr(datasets, name)(root, download=download, **chosen)
        return _convert(name, made)
    except Exception as error:  # torchvision has no exceptions of its own, and asserts what files hold
        advice = "" if download else "; `download: true` downloads what is missing"
        raise ValueError(
            f"TorchvisionSet cannot read {name} in {root!r}, got {type(error).__name__}: {error}{advice}"
        ) from error


def _convert(name: str, made: Any) -> _Samples:
    """Converts a data set of torchvision; pixels stay bytes."""
    if name == "CelebA":
        folder = os.path.join(made.root, made.base_folder, "img_align_celeba")
        return _Samples(_Files(folder, list(made.filename), (218, 178)), None)
    pixels = torch.as_tensor(np.asarray(made.data))
    if name.endswith("MNIST"):
        pixels = pixels.unsqueeze(1)
    elif name.startswith("CIFAR"):
        pixels = pixels.permute(0, 3, 1, 2)
    labels = torch.as_tensor(np.asarray(made.targets if hasattr(made, "targets") else made.labels)).long()
    if len(labels) != len(pixels) or pixels.dtype != torch.uint8 or not len(pixels):
        raise ValueError(f"expected bytes with a label per picture, got {len(labels)} for {len(pixels)}")
    if not 0 <= int(labels.min()) <= int(labels.max()) < _CLASSES[name]:
        raise ValueError(f"expected labels below {_CLASSES[name]}, got {int(labels.min())} to {int(labels.max())}")
    return _Samples(_Bytes(pixels), labels)
