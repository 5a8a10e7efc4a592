"""Fashion-MNIST: 70,000 grey pictures of clothes, 28×28, in ten classes (Xiao et al., 2017).

    x = resize(pixels / 127.5 - 1)        pixels 0..255

The IDX files must exist; nothing is downloaded. Pictures are stored as bytes until they are read.

References:
    Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao et al., 2017),
    https://arxiv.org/abs/1708.07747

Shape letters: b batch, h w spatial.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from modkit.data.idx import read_idx
from modkit.data.moments import measure_std
from modkit.data.resize import is_exact, resize
from modkit.data.splits import InMemory, hash_contents
from modkit.types import PositiveInt, TensorType, checked

__all__ = ["FashionMNIST"]

_SIZE, _CLASSES = 28, 10
_DEBIAN = "/usr/share/datasets"
_TORCHVISION = Path("FashionMNIST", "raw")
_FILES = {"train": "train", "test": "t10k"}


@checked
class FashionMNIST(InMemory):
    """Fashion-MNIST, `b 1 size size` in [-1, 1], with the field `labels` (`b`, ten classes).

    There are 60,000 training and 10,000 test samples. `levels` is 256 at sizes 28 and 32, and None at other sizes,
    where pixels may take any value.

    Args:
        root: Folder with the four IDX files, gzipped or plain, or the `root` of torchvision's download; None is
            `fashion-mnist` in the folder of system data sets, where Debian's package `dataset-fashion-mnist` puts it:
            `/usr/share/datasets`, or the folder that the environment variable `MODKIT_DATASETS` names.
        size: Height and width. 28 leaves the pictures unchanged, 32 adds two black pixels on each side, and any other
            size resizes them bilinearly (antialiased if they shrink).

    Raises:
        ValueError: If the files are missing or damaged, or `size` is below 1.

    Examples:
        Pictures of two classes, written as IDX files:

        >>> import struct, tempfile
        >>> from modkit import Rng
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("train", "t10k"):
        ...     head = struct.pack(">4B3I", 0, 0, 8, 3, 2, 28, 28)
        ...     _ = (root / f"{name}-images-idx3-ubyte").write_bytes(head + bytes(2 * 28 * 28))
        ...     _ = (root / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, 2) + bytes([0, 1]))
        >>> data = FashionMNIST(root=str(root), size=32)
        >>> data.splits, data.read("train", [1], Rng(0)).tensor.shape
        ({'train': 2, 'test': 2}, torch.Size([1, 1, 32, 32]))
    """

    def __init__(self, *, root: str | None = None, size: PositiveInt = 28) -> None:
        self._size = size
        folder = Path(os.environ.get("MODKIT_DATASETS", _DEBIAN), "fashion-mnist") if root is None else Path(root)
        self._samples = {split: _read(folder, split) for split in _FILES}
        self.fields = {"labels": TensorType((), classes=_CLASSES)}
        self.splits = {split: len(labels) for split, (_, labels) in self._samples.items()}
        self.levels = 256 if is_exact(_SIZE, size) else None
        self.x = TensorType((1, size, size), range=(-1.0, 1.0), std=measure_std(self))

    @property
    def key(self) -> str:
        """Hash of pixels, labels and size."""
        pieces = (tensor.numpy().tobytes() for samples in self._samples.values() for tensor in samples)
        return hash_contents("fashion-mnist", self._size, *pieces)

    def _decode(self, x: Tensor) -> Tensor:
        return resize(x.unsqueeze(1), self._size)


def _read(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """Reads pictures, `n 28 28`, and labels, `n`, as bytes."""
    images_path = _find(root, f"{_FILES[split]}-images-idx3-ubyte")
    labels_path = _find(root, f"{_FILES[split]}-labels-idx1-ubyte")
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if images.shape[1:] != (_SIZE, _SIZE) or not len(images):
        raise ValueError(f"FashionMNIST expects pictures of {_SIZE}×{_SIZE} in {images_path}, got shape {images.shape}")
    if len(images) != len(labels):
        raise ValueError(f"FashionMNIST expects a label per picture in {root}, got {len(labels)} for {len(images)}")
    if labels.max() >= _CLASSES:
        raise ValueError(f"FashionMNIST expects labels below {_CLASSES} in {labels_path}, got {labels.max()}")
    return torch.from_numpy(images), torch.from_numpy(labels)


def _find(root: Path, name: str) -> Path:
    for folder in (root, root / _TORCHVISION):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise ValueError(
        f"FashionMNIST expects {name} or {name}.gz in {root} or {root / _TORCHVISION}, got neither. Get the files with "
        f"`apt install dataset-fashion-mnist`, which needs no root, or with "
        f'`torchvision.datasets.FashionMNIST("data", download=True)` and root: data'
    )
