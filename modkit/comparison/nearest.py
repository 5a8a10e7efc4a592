"""Nearest training images: for each sample the one at the smallest pixel distance, found in one pass over the split.

    d(x) = min_t |x - t|_2

Only one batch of the split is in memory at a time.

Shape letters: n samples, b batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from modkit.data.splits import find_plain, read_samples
from modkit.kinds import Data
from modkit.rng import Rng

__all__ = ["Nearest", "find_nearest", "read_batches"]


class Nearest(NamedTuple):
    """The nearest neighbours of `n` samples."""

    distances: Tensor  # their distances, float64, `n`
    indices: Tensor  # their indices in the split, `n`
    images: Tensor  # the neighbours themselves, `n ...`


def find_nearest(x: Tensor, batches: Iterable[Tensor]) -> Nearest:
    """Finds the nearest neighbour of each sample of `x`, `n ...`, in `batches`, `b ...`, in the order of their indices.

    Raises:
        ValueError: If the batches are empty or their samples have another shape.
    """
    queries = x.detach().cpu().double().flatten(1)
    found = Nearest(
        torch.full((len(x),), torch.inf, dtype=torch.float64), torch.full((len(x),), -1), torch.empty_like(x).cpu()
    )
    first = 0
    for batch in batches:
        if batch.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"find_nearest expects samples of shape {tuple(x.shape[1:])}, got {tuple(batch.shape[1:])}"
            )
        rows = batch.detach().cpu().double().flatten(1)
        near = torch.cdist(queries, rows, compute_mode="donot_use_mm_for_euclid_dist").min(dim=1)
        nearer = near.values < found.distances
        found.distances[nearer] = near.values[nearer]
        found.indices[nearer] = first + near.indices[nearer]
        found.images[nearer] = batch.detach().cpu()[near.indices[nearer]].to(found.images.dtype)
        first += len(batch)
    if not first:
        raise ValueError("find_nearest expects at least one batch, got none")
    return found


def read_batches(data: Data, split: str = "train", size: int = 256, most: int | None = None) -> Iterable[Tensor]:
    """Reads a split batch by batch in its order, at most `most` samples of it, without augmentation."""
    data = find_plain(data)
    count = data.splits[split] if most is None else min(most, data.splits[split])
    for start in range(0, count, size):
        yield read_samples(data, split, range(start, min(start + size, count)), Rng(0, "compare", start)).tensor
