"""The fields of a data set without its samples: counting labels decodes no pictures.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from modkit.kinds import Data, DataExtras, read_extras
from modkit.rng import Rng
from modkit.types import Batch, TensorType

__all__ = ["Fields"]


class Fields:
    """A data set whose batches have the fields of another's, and samples of no values, `b 0`.

    Args:
        data: The other data set; unless it has `read_fields`, whole samples are read, and left out.

    Examples:
        >>> from modkit.data import Digits
        >>> batch = Fields(Digits(size=8)).read("test", [0, 1, 2], Rng(0))
        >>> batch.tensor.shape, batch.fields["labels"].shape
        (torch.Size([3, 0]), torch.Size([3]))
    """

    levels: int | None = None

    def __init__(self, data: Data) -> None:
        self._data = data
        self.fields, self.splits = data.fields, data.splits

    @property
    def x(self) -> TensorType:
        """The type of the samples that are left out."""
        return self._data.x

    @property
    def key(self) -> str:
        """The key of the data set."""
        return self._data.key

    def read(self, split: str, indices: Sequence[int], rng: Rng) -> Batch:
        """Reads the fields at `indices`.

        Raises:
            ValueError: If there is no such split.
        """
        read = read_extras(self._data, DataExtras).read_fields
        fields = self._data.read(split, indices, rng).fields if read is None else read(split, indices)
        return Batch(torch.empty(len(indices), 0), fields)
