"""Digits: the 1797 grey handwritten digits of 8×8 pixels that come with scikit-learn (Alpaydin and Kaynak, 1998).

    x = resize(pixels / 8 - 1)        pixels 0..16, bilinear between pixel centres (`align_corners=False`)

The split is fixed: stratified, with a fifth for testing, by scikit-learn's `train_test_split` with seed 0; its rows are
in `digits_split.txt`, those that train first.

Shape letters: b batch, h w spatial.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from torch.nn.functional import interpolate

from modkit.data.moments import measure_std
from modkit.data.splits import InMemory, hash_contents
from modkit.types import Range, TensorType, checked

__all__ = ["Digits"]

_SIZE = 8
_LARGEST = 256
_TRAIN = 1437  # rows


@checked
class Digits(InMemory):
    """Scikit-learn's handwritten digits, `b 1 size size` in [-1, 1], with the field `labels` (`b`, ten classes).

    There are 1437 training and 360 test samples. `levels` is 17 at size 8 and None at other sizes, where pixels may
    take any value.

    Args:
        size: Height and width after bilinear resizing; 8 leaves the pixels as they are.

    Raises:
        ValueError: If `size` is outside [1, 256].

    Examples:
        >>> from modkit import Rng
        >>> data = Digits(size=8)
        >>> data.splits
        {'train': 1437, 'test': 360}
        >>> batch = data.read("test", [0, 1], Rng(0))
        >>> tuple(batch.tensor.shape), tuple(batch.fields["labels"].shape)
        ((2, 1, 8, 8), (2,))
    """

    features = "classifier:digits"

    def __init__(self, *, size: Annotated[int, Range(1, _LARGEST)] = 16) -> None:
        images, labels, train, test = _read()
        x = torch.from_numpy(images).float().view(-1, 1, _SIZE, _SIZE) / 8 - 1
        if size != _SIZE:
            x = interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        y = torch.from_numpy(labels).long()

        self.fields = {"labels": TensorType((), classes=10)}
        self.splits = {"train": len(train), "test": len(test)}
        self.levels = 17 if size == _SIZE else None
        self._samples = {"train": (x[train], y[train]), "test": (x[test], y[test])}
        self.x = TensorType((1, size, size), range=(-1.0, 1.0), std=measure_std(self))
        # of the original pixels, the split and the size
        self.key = hash_contents("digits", images.astype(np.uint8).tobytes(), train.tobytes(), size)


@cache
def _read() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and labels, and the rows that train and test, once a process.

    Scikit-learn's file is read without scikit-learn, since to import it takes as long as to import torch.
    """
    package = find_spec("sklearn")
    assert package is not None and package.origin is not None  # a dependency
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if file.exists():
        values = np.loadtxt(file, delimiter=",")
        images, labels = values[:, :-1], values[:, -1].astype(np.int64)
    else:  # of another version
        from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]

        images, labels = load_digits(return_X_y=True)
    rows = np.array(Path(__file__).with_name("digits_split.txt").read_text().split(), dtype=np.int64)
    return images, labels, rows[:_TRAIN], rows[_TRAIN:]
