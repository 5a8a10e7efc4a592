r"""Codebook: learned codes, the nearest of which stands for a vector, moved by averages of what each stands for.

    nearest(z) = argmin_k |z - e_k|^2 = argmin_k |e_k|^2 / 2 - z . e_k
    N <- gamma N + (1 - gamma) n,   m <- gamma m + (1 - gamma) sum z,   e = m / smoothed(N)
    smoothed(N) = (N + tiny) / (sum N + K tiny) sum N

Since e = m / smoothed(N) always, m is not kept beside them. The sums of a step are collected in buffers, over as many
calls as there are, and moved once. On the sphere e is divided by its length, and m goes on from there.

Shape letters: b batch, n vectors or positions, k codes, c channels.

References:
    Neural Discrete Representation Learning (van den Oord et al., 2017), appendix A.1,
    https://arxiv.org/abs/1711.00937
    Jukebox (Dhariwal et al., 2020), section 3.2: reviving codes, https://arxiv.org/abs/2005.00341
    k-means++: The Advantages of Careful Seeding (Arthur and Vassilvitskii, 2007),
    https://dl.acm.org/doi/10.5555/1283383.1283494
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit.precision import widen
from modkit.rng import Rng

__all__ = ["Codebook", "fair_sample", "kmeans", "lowest", "nearest"]

_SCORES = 2**22  # scores held at once, 16 MB in float32: of fewer, threads would often wait for each other
_CODES = 2**10  # codes in a block at most: of rows so short the minimum is found in cache
_LANES = 16
_TINY = 1e-5
_UNSEEN = 2.0  # priority of an empty place: above every uniform draw


class Codebook(nn.Module):
    """Codes `k c`, and how often each has been used.

    Args:
        owner: Whose it is, for errors.
        num_codes: Number of codes.
        channels: Channels of a code.
        ema: Whether moving averages move the codes; if not, they are a parameter.
        decay: Decay gamma of the moving averages, in [0, 1).
        revive: A code is dead when its average usage falls below this share of the mean usage; it is then replaced by
            a vector seen in the step. 0: never.
        sphere: Whether codes have length one.

    Raises:
        ValueError: If a number is out of its range.
    """

    codes: Tensor
    usage: Tensor
    counts: Tensor
    sums: Tensor
    seen: Tensor
    priority: Tensor

    def __init__(
        self,
        owner: str,
        num_codes: int,
        channels: int,
        *,
        ema: bool,
        decay: float,
        revive: float,
        sphere: bool = False,
    ) -> None:
        super().__init__()
        if not (0 <= decay < 1 and 0 <= revive < 1):
            raise ValueError(f"{owner} expects decay and revive in [0, 1), got decay {decay}, revive {revive}")
        self._owner, self.ema, self.decay, self.revive, self.sphere = owner, ema, decay, revive, sphere
        codes = self._placed(torch.empty(num_codes, channels).normal_())
        if ema:
            self.register_buffer("codes", codes)
            self.register_buffer("sums", torch.zeros_like(codes), persistent=False)
        else:
            self.codes = nn.Parameter(codes)
        self.register_buffer("usage", torch.ones(num_codes))
        self.register_buffer("counts", torch.zeros(num_codes), persistent=False)
        if revive:
            self.register_buffer("seen", torch.zeros_like(codes), persistent=False)
            self.register_buffer("priority", torch.full((num_codes,), _UNSEEN), persistent=False)

    @property
    def limit(self) -> int:
        """How many vectors its start is made of at most."""
        return max(len(self.codes), min(64 * len(self.codes), 2**16))

    def forward(self, codes: Tensor) -> Tensor:
        """Embeddings `... c` of codes `...`; gradients reach a codebook that is a parameter."""
        return F.embedding(codes, self._placed(self.codes))

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Codes `b n` of vectors `b n c`."""
        return nearest(vectors.flatten(0, 1), self._placed(self.codes)).view(vectors.shape[:2])

    @torch.no_grad()
    def observe(self, vectors: Tensor, codes: Tensor, rng: Rng) -> None:
        """Adds to the sums of the step.

        Args:
            vectors: `b n c`.
            codes: Their codes, `b n`.
            rng: Draws which of the vectors may replace dead codes.
        """
        flat, every = codes.flatten(), vectors.detach().flatten(0, 1)
        self.counts.index_add_(0, flat, self.counts.new_ones(len(flat)))
        if self.ema:
            self.sums.index_add_(0, flat, every)
        if self.revive:
            drawn = rng.uniform("revive", _places(vectors)).flatten()
            merged = torch.cat([self.priority, drawn]), torch.cat([self.seen, every])
            priority, seen = lowest(*merged, len(self.seen))
            self.priority.copy_(priority)
            self.seen.copy_(seen)

    @torch.no_grad()
    def update(self) -> None:
        """Moves usage and, under `ema`, the codes by what this step has seen; revives dead codes; forgets the sums."""
        smoothed = self._smoothed_usage()
        self.usage.lerp_(self.counts, 1 - self.decay)
        if self.ema:
            self.codes.mul_(self.decay * smoothed).add_(self.sums, alpha=1 - self.decay).div_(self._smoothed_usage())
            if self.sphere:
                self.codes.copy_(self._placed(self.codes))
        if self.revive:
            self._revive_dead()
        self._forget()

    @torch.no_grad()
    def start(self, vectors: Tensor, rng: Rng) -> None:
        """Starts the codes at k-means centres.

        Args:
            vectors: `n c`.
            rng: Source of the k-means++ draws.

        Raises:
            ValueError: If there are no vectors.
        """
        if not len(vectors):
            raise ValueError(f"{self._owner} expects features to start its codes from, got none")
        self.codes.copy_(self._placed(kmeans(vectors, self.codes, rng)))
        self.usage.fill_(1)
        self._forget()

    def _placed(self, codes: Tensor) -> Tensor:
        return F.normalize(codes, dim=-1) if self.sphere else codes

    def _smoothed_usage(self) -> Tensor:
        """Laplace-smoothed usage, `k 1`."""
        total = self.usage.sum()
        return ((self.usage + _TINY) / (total + len(self.usage) * _TINY) * total)[:, None]

    def _revive_dead(self) -> None:
        """Gives the i-th dead code the i-th vector kept, as far as there are any; its usage becomes the mean."""
        mean = self.usage.mean()
        dead = self.usage < self.revive * mean
        source = (dead.cumsum(0) - 1).clamp_min(0)
        dead &= self.priority[source] < _UNSEEN
        torch.where(dead[:, None], self.seen[source], self.codes, out=self.codes)
        self.usage.copy_(torch.where(dead, mean, self.usage))

    def _forget(self) -> None:
        self.counts.zero_()
        if self.ema:
            self.sums.zero_()
        if self.revive:
            self.priority.fill_(_UNSEEN)


@torch.no_grad()
def fair_sample(batches: Iterable[Tensor], limit: int, rng: Rng) -> Tensor:
    """A uniform sample without replacement of all vectors, `n c`, as many as there are or `limit`.

    Args:
        batches: Vectors, `b n c` each.
        limit: How many at most.
        rng: Draws them.
    """
    priority, kept = torch.empty(0), torch.empty(0, 0)
    for index, vectors in enumerate(batches):
        drawn, every = rng.at(index).uniform("keep", _places(vectors)).flatten(), vectors.flatten(0, 1)
        if index:
            drawn, every = torch.cat([priority, drawn]), torch.cat([kept, every])
        priority, kept = lowest(drawn, every, limit)
    return kept


@torch.no_grad()
def nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code nearest to each vector; of equally near ones, the lowest.

    Works through blocks of vectors and codes with a running minimum, so that the n x k scores are never held at once,
    in float32 at least, autocast or not.

    Args:
        z: Vectors, `n c`.
        codebook: Codes, `k c`.

    Returns:
        Indices, int64, `n`.
    """
    if z.is_meta:  # a check of the spec, which may ask for billions of codes
        return z.new_empty(len(z), dtype=torch.int64)
    dtype = torch.promote_types(torch.promote_types(z.dtype, codebook.dtype), torch.float32)
    z, codebook = z.to(dtype), codebook.to(dtype)
    # Equal codes tie exactly only where every column takes the same path through the matrix product: blocks are of one
    # width, and none has columns left over.
    blocks = -(-len(codebook) // _CODES)
    width = -(-len(codebook) // (blocks * _LANES)) * _LANES
    missing = blocks * width - len(codebook)
    codes = F.pad(codebook, (0, 0, 0, missing)) if missing else codebook
    half = codes.square().sum(1) / 2
    half[len(codebook) :] = float("inf")
    rows = max(1, _SCORES // width)
    scores = z.new_empty(min(len(z), rows), width)
    kind = z.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        return torch.cat([_nearest(part, codes, half, scores[: len(part)]) for part in torch.split(z, rows)])


def _nearest(z: Tensor, codes: Tensor, half: Tensor, scores: Tensor) -> Tensor:
    """The same of as many vectors as `scores`, `n w`, has room for, by w codes at a time."""
    width = scores.shape[1]
    lowest, index = torch.addmm(half[:width], z, codes[:width].T, alpha=-1, out=scores).min(1)
    for first in range(width, len(codes), width):
        block = slice(first, first + width)
        low, at = torch.addmm(half[block], z, codes[block].T, alpha=-1, out=scores).min(1)
        index = torch.where(low < lowest, at + first, index)
        lowest = torch.minimum(low, lowest)
    return index


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
    x = widen(x)
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


def _places(vectors: Tensor) -> Tensor:
    """An empty float32 tensor with a place for each vector, `b n`."""
    return torch.empty(vectors.shape[:2], dtype=torch.float32, device=vectors.device)
