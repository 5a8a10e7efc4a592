"""A source of random draws for the rows of a batch, each with a source of its own.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from modkit.rng import Rng

__all__ = ["Each"]


class Each(Rng):
    """A source with one source per row, so that a sample's draws depend on its index and not on its row.

    Args:
        sources: The source of each row.

    Examples:
        >>> each, like = Each([Rng(0).at(index) for index in (7, 3)]), torch.empty(2, 4)
        >>> torch.equal(each.normal("eps", like)[1:], Rng(0).at(3).normal("eps", like[:1]))
        True
    """

    def __init__(self, sources: Sequence[Rng]) -> None:
        super().__init__()
        self._sources = sources

    def at(self, *names: int | str) -> Rng:
        """Returns the children of the rows' sources."""
        return Each([one.at(*names) for one in self._sources])

    def rows(self, first: int) -> Rng:
        """Returns the sources of the rows from `first` on."""
        return Each(self._sources[first:])

    def normal(self, name: str, like: Tensor) -> Tensor:
        """Draws from a standard normal, `b ...`."""
        return self._draw_rows(like, lambda rng, row: rng.normal(name, row))

    def uniform(self, name: str, like: Tensor) -> Tensor:
        """Draws uniformly from [0, 1), `b ...`."""
        return self._draw_rows(like, lambda rng, row: rng.uniform(name, row))

    def integers(self, name: str, like: Tensor, low: int, high: int) -> Tensor:
        """Draws int64 integers uniformly from [low, high), `b ...`."""
        return self._draw_rows(like, lambda rng, row: rng.integers(name, row, low, high))

    def make_generators(self, num: int) -> list[torch.Generator]:
        """Returns a seeded CPU generator for each of the first `num` rows."""
        return [one.make_generators(1)[0] for one in self._sources[:num]]

    def _draw_rows(self, like: Tensor, draw: Callable[[Rng, Tensor], Tensor]) -> Tensor:
        return torch.cat([draw(rng, like[row : row + 1]) for row, rng in enumerate(self._sources[: len(like)])])
