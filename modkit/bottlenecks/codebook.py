r"""What a codebook needs: the nearest code, a fair sample of what was seen, and a k-means start.

    nearest(z) = argmin_k |z - e_k|^2 = argmin_k |e_k|^2 / 2 - z . e_k

Shape letters: n vectors, k codes, c channels.

References:
    k-means++: The Advantages of Careful Seeding (Arthur and Vassilvitskii, 2007),
    https://dl.acm.org/doi/10.5555/1283383.1283494
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.precision import widened
from modkit.rng import Rng

__all__ = ["kmeans", "lowest", "nearest"]

_SCORES = 2**20  # scores held at once, 4 MB in float32: a chunk that stays in cache
_LANES = 16


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code nearest to each vector; of equally near ones, the lowest.

    Works through chunks of vectors, so that the n x k scores are never held at once, in float32 at least, autocast or
    not.

    Args:
        z: Vectors, `n c`.
        codebook: Codes, `k c`.

    Returns:
        Indices, int64, `n`.
    """
    dtype = torch.promote_types(torch.promote_types(z.dtype, codebook.dtype), torch.float32)
    z, codebook = z.to(dtype), codebook.to(dtype)
    # Equal codes tie exactly only where every column takes the same path through the matrix product: none is left over.
    codes = F.pad(codebook, (0, 0, 0, -len(codebook) % _LANES))
    half = codes.square().sum(1) / 2
    half[len(codebook) :] = float("inf")
    rows = max(1, _SCORES // len(codes))
    kind = z.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return torch.cat([torch.addmm(half, part, codes.T, alpha=-1).argmin(1) for part in torch.split(z, rows)])


def lowest(priority: Tensor, vectors: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """The `num` vectors of lowest priority, in its order, equal ones as they came.

    Under uniform priorities that is a fair sample without replacement, in random order; samples of parts merge into the
    sample of the whole, whatever the parts.

    Args:
        priority: `n`.
        vectors: `n c`.
        num: How many to keep.
    """
    order = priority.argsort(stable=True)[:num]
    return priority[order], vectors[order]


@torch.no_grad()
def kmeans(x: Tensor, codebook: Tensor, rng: Rng, *, num_iters: int = 20) -> Tensor:
    """Centres of `x` by Lloyd's iterations from a k-means++ start, in float32 at least.

    Where `x` has fewer distinct vectors than there are codes, each is a centre and the other codes stay as they were.

    Args:
        x: Vectors, `n c`, at least one.
        codebook: The codes to start, `k c`; left as they are.
        rng: Source of the k-means++ draws.
        num_iters: Lloyd's iterations at most; stops before where no vector changes its code.

    Returns:
        Centres, `k c`, dtype of `codebook`.
    """
    x = widened(x)
    centres = _seeded(x, codebook.to(x.dtype, copy=True), rng)
    codes = nearest(x, centres)
    for _ in range(num_iters):
        counts = x.new_zeros(len(centres), 1).index_add_(0, codes, x.new_ones(len(x), 1))
        sums = torch.zeros_like(centres).index_add_(0, codes, x)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
        codes, previous = nearest(x, centres), codes
        if torch.equal(codes, previous):
            break
    return centres.to(codebook.dtype)


def _seeded(x: Tensor, centres: Tensor, rng: Rng) -> Tensor:
    """k-means++: each centre is a vector drawn in proportion to its squared distance from those before it."""
    draws = rng.uniform("seeds", torch.empty(len(centres), dtype=torch.float64)).to(x.device)
    chance = torch.ones(len(x), dtype=torch.float64, device=x.device)
    distance = x.new_full((len(x),), float("inf"))
    for k, draw in enumerate(draws):
        cumulative = chance.cumsum(0)
        if cumulative[-1] == 0:
            break
        centres[k] = x[torch.searchsorted(cumulative, draw * cumulative[-1], right=True).clamp_max(len(x) - 1)]
        distance = torch.minimum(distance, (x - centres[k]).square().sum(1))
        chance = distance.double()
    return centres
