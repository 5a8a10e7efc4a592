"""Names of many files, stored in one string."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

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
        self.text = b"".join(names)
        self.ends = np.fromiter(accumulate(map(len, names)), dtype=np.int64, count=len(names))

    @classmethod
    def restore(cls, text: bytes, ends: NDArray[np.int64]) -> Names:
        """Makes names of their text and where in it they end, `n`."""
        names = cls([])
        names.text, names.ends = text, ends
        return names

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> bytes:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(f"{type(self).__name__} expects an index in [0, {len(self)}), got {index}")
        return self.text[self.ends[index - 1] if index else 0 : self.ends[index]]

    def find(self, name: bytes) -> int:
        """Finds the index of a name.

        Raises:
            KeyError: If there is no such name.
        """
        index = bisect_left(self, name)
        if index == len(self) or self[index] != name:
            raise KeyError(name)
        return index

    def find_all(self, names: Iterable[bytes]) -> NDArray[np.int64]:
        """Finds the indices of names that are sorted as well, in one pass."""
        found, index = [], 0
        for name in names:
            while self[index] != name:
                index += 1
            found.append(index)
        return np.array(found, dtype=np.int64)
