r"""Rows that processes compute together: each computes whole batches, and all of them get all rows.

    batch b = rows [b s, (b + 1) s),   computed by process b mod W        s: rows of a batch, W: number of processes

A batch is the same whichever process computes it, so its rows are those of one process, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modkit.kinds import Exchange
from modkit.types import Value

__all__ = ["share_rows"]


def share_rows(compute: Callable[[int, int], Value], num: int, exchange: Exchange, size: int | None = None) -> Value:
    """Computes rows in batches, in all processes together; each returns all rows.

    Args:
        compute: Computes rows, given the index of the first and their number; of a hierarchy, the rows of each level.
        num: Number of rows, at least 1.
        exchange: The processes.
        size: Rows of a batch; by default at most 256, and few enough for each process to have a batch.

    Examples:
        >>> from modkit.engines import LocalEngine
        >>> share_rows(lambda first, num: torch.arange(first, first + num), 5, LocalEngine("cpu"), size=2)
        tensor([0, 1, 2, 3, 4])
    """
    rank, world = exchange.rank, exchange.world
    size = min(256, -(-num // world)) if size is None else size
    starts = range(rank * size, num, world * size)
    # without a batch of its own, a process computes the first, whose type and shape it has to know
    parts = [compute(start, min(size, num - start)) for start in starts or range(1)]
    rounds = -(-num // (size * world))

    def assemble(levels: list[Tensor]) -> Tensor:
        mine = torch.cat(levels)
        if world == 1:
            return mine
        padded = mine.new_zeros(rounds * size, *mine.shape[1:])
        padded[: len(mine)] = mine
        every = exchange.gather(padded).reshape(world, rounds, size, *mine.shape[1:])
        return every.transpose(0, 1).flatten(0, 2)[:num]

    if isinstance(parts[0], tuple):
        return tuple(assemble(list(level)) for level in zip(*parts, strict=True))
    return assemble([part for part in parts if isinstance(part, Tensor)])
