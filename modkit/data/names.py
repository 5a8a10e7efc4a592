"""Names of many files, stored in one string."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

import numpy as np

__all__ = ["Names"]


class Names(Sequence[bytes]):
    """Sorted names, stored in one string.

    Reference counts would cause a list of strings to be copied into every forked worker, page by page.

    Args:
        names: The names, sorted.

    Examples:
        >>> names = Names([b"cat/1.png", b"dog/2.png"])
        >>> names[1], names.find(b"dog/2.png")
        (b'dog/2.png', 1)
    """

    def __init__(self, names: Sequence[bytes]) -> None:
        self._text = b"".join(names)
        self._ends = np.fromiter(accumulate(map(len, names)), dtype=np.int64, count=len(names))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"{type(self).__name__} expects an index in [0, {len(self)}), got {index}")
        return self._text[self._ends[index - 1] if index else 0 : self._ends[index]]

    def find(self, name: bytes) -> int:
        """Finds the index of a name.

        Raises:
            KeyError: If there is no such name.
        """
        index = bisect_left(self, name)
        if index == len(self) or self[index] != name:
            raise KeyError(name)
        return index
