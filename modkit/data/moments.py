r"""Moments: the mean and the standard deviation of values over batches.

    mean = o + S_1 / n,    std^2 = S_2 / n - (S_1 / n)^2,    S_k = sum (x - o)^k in float64, o the first batch's mean

Shape letters: b batch, c channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from modkit.data.loader import read_in_order
from modkit.data.splits import find_plain, is_stream, read_samples
from modkit.kinds import Data
from modkit.rng import Rng
from modkit.types import Batch, TensorType

__all__ = ["RunningMoments", "find_type", "measure_std", "read_some"]

_CHUNK = 64  # samples that are read at once


class RunningMoments:
    """The mean and the standard deviation of all values, or of each channel's.

    Args:
        by_channel: Whether each channel, the first axis of a sample, has moments of its own.

    Examples:
        >>> moments = RunningMoments()
        >>> moments.add(torch.tensor([[1.0, 3.0]]))
        >>> moments.add(torch.tensor([[5.0, 7.0]]))
        >>> moments.compute()
        (tensor(4., dtype=torch.float64), tensor(2.2361, dtype=torch.float64))
    """

    def __init__(self, *, by_channel: bool = False) -> None:
        self._by_channel = by_channel
        self._origin: Tensor | None = None
        self._sums: tuple[float, Tensor | float, Tensor | float] = (0, 0.0, 0.0)

    @torch.no_grad()
    def add(self, values: Tensor) -> None:
        """Adds a batch, `b ...` or, by channel, `b c ...`."""
        values = values.cpu().double()  # some devices have no float64
        axes = [axis for axis in range(values.ndim) if axis != 1] if self._by_channel else None
        if self._origin is None:
            self._origin = values.mean(axes, keepdim=True)
        values = values - self._origin
        first, second = (power.sum(axes, keepdim=True) for power in (values, values**2))
        count, before, before_squared = self._sums
        self._sums = (count + values.numel() / first.numel(), before + first, before_squared + second)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Returns the mean and the standard deviation so far, float64: scalars or, by channel, `c`.

        Raises:
            ValueError: If nothing has been added.
        """
        if self._origin is None:
            raise ValueError("RunningMoments expects values, got none")
        count, first, second = self._sums
        shift = torch.as_tensor(first) / count
        variance = torch.as_tensor(second) / count - shift**2
        shape = (-1,) if self._by_channel else ()
        return (shift + self._origin).reshape(shape), variance.clamp_min(0).sqrt().reshape(shape)


def measure_std(data: Data, num: int = 1024) -> float | None:
    """Measures the standard deviation of a data set's values, over at most `num` evenly spaced training samples.

    Of a stream, they are the first of a pass, in whole batches. Augmentation (`DataExtras.plain`) is left out.

    It is rounded to six digits, so that it is the same on every machine, and None if there are no training samples or
    all their values are equal.

    Examples:
        >>> from modkit.data.objects import Tensors
        >>> measure_std(Tensors(torch.tensor([[1.0], [5.0]]), {}, x=TensorType((1,)), fields={}))
        2.0
    """
    data, taken = find_plain(data), min(data.splits.get("train", 0), num)
    moments = RunningMoments()
    for batch in read_some(data, taken):
        moments.add(batch.tensor)
    std = float(f"{float(moments.compute()[1]):.6g}") if taken else 0.0
    return std if 0 < std < math.inf else None


def read_some(data: Data, num: int) -> Iterator[Batch]:
    """Yields `num` evenly spaced training samples, as models see them; of a stream the first, in whole batches."""
    if is_stream(data):
        yield from islice(read_in_order(data, "train", _CHUNK, Rng(0, "std")), -(-num // _CHUNK))
        return
    indices = [index * data.splits["train"] // num for index in range(num)]
    for start in range(0, num, _CHUNK):
        yield read_samples(data, "train", indices[start : start + _CHUNK], Rng(0, "std"))


def find_type(data: Data) -> TensorType:
    """Returns the type of a data set's samples, with the levels that it has in its range.

    If it is continuous and states no deviation, this is measured.

    Examples:
        >>> from modkit.data.objects import Tensors
        >>> find_type(Tensors(torch.tensor([[1.0], [5.0]]), {}, x=TensorType((1,)), fields={})).std
        2.0
    """
    x = data.x
    if data.levels is not None and x.levels is None:
        x = replace(x, levels=data.levels)
    return x if x.std is not None or x.classes is not None else replace(x, std=measure_std(data))
