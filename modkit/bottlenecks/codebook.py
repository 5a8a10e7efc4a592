r"""Codebook: learned codes, moved by averages of the vectors to which each is the nearest.

    N <- gamma N + (1 - gamma) n,   m <- gamma m + (1 - gamma) sum z,   e = m / smoothed(N)
    smoothed(N) = (N + tiny) / (sum N + K tiny) sum N

m is not stored, since it equals e smoothed(N). The sums of a step are collected in buffers over all its calls and
applied once. On the sphere, e is divided by its length, and the next m is computed from the result.

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
from typing import Annotated

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from modkit.kinds import Step
from modkit.ops.nearest import find_nearest
from modkit.precision import find_widest, widen, widen_fully
from modkit.rng import Rng
from modkit.types import Range, checked

__all__ = ["Codebook", "sample_vectors", "kmeans", "keep_lowest"]

_TINY = 1e-5
_UNSEEN = 2.0  # priority of an empty place: above every uniform draw


@checked
class Codebook(nn.Module):
    """Codes `k c`, and how often each is used.

    Args:
        owner: Class of the bottleneck, for error messages.
        num_codes: Number of codes.
        channels: Channels of a code.
        ema: Whether the codes are moved by moving averages; otherwise they are a parameter.
        decay: As in `VectorQuantizer`, in [0, 1).
        revive: As in `VectorQuantizer`, in [0, 1).
        sphere: Whether codes have length one.

    Raises:
        ValueError: If a number is out of its range.

    Examples:
        >>> codebook = Codebook("Example", num_codes=8, channels=4, ema=True, decay=0.99, revive=0.05)
        >>> codes = codebook.find_nearest(torch.zeros(2, 9, 4))
        >>> codes.shape, codebook(codes).shape
        (torch.Size([2, 9]), torch.Size([2, 9, 4]))
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
        decay: Annotated[float, Range(0, below=1)],
        revive: Annotated[float, Range(0, below=1)],
        sphere: bool = False,
    ) -> None:
        super().__init__()
        self._owner, self.ema, self.decay, self.revive, self.sphere = owner, ema, decay, revive, sphere
        codes = self._normalize(torch.empty(num_codes, channels).normal_())
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
        """Maximum number of vectors from which `start` computes the codes."""
        return max(len(self.codes), min(64 * len(self.codes), 2**16))

    def forward(self, codes: Tensor) -> Tensor:
        """Looks up embeddings `... c` of codes `...`; gradients reach the codes if they are a parameter."""
        return F.embedding(codes, self._normalize(self.codes))

    @torch.no_grad()
    def find_nearest(self, vectors: Tensor) -> Tensor:
        """Finds the nearest codes `b n` of vectors `b n c`."""
        codes = find_nearest(rearrange(vectors, "b n c -> (b n) c"), self._normalize(self.codes))
        return rearrange(codes, "(b n) -> b n", b=len(vectors), n=vectors.shape[1])

    @torch.no_grad()
    def observe(self, vectors: Tensor, codes: Tensor, rng: Rng) -> None:
        """Adds vectors and their codes to the sums of the step.

        Args:
            vectors: `b n c`.
            codes: Their codes, `b n`.
            rng: Draws which of the vectors may replace dead codes.
        """
        flat, every = codes.flatten(), rearrange(vectors.detach(), "b n c -> (b n) c")
        self.counts.index_add_(0, flat, self.counts.new_ones(len(flat)))
        if self.ema:
            self.sums.index_add_(0, flat, every)
        if self.revive:
            drawn = rng.uniform("revive", _allocate_priorities(vectors)).flatten()
            merged = torch.cat([self.priority, drawn]), torch.cat([self.seen, every])
            priority, seen = keep_lowest(*merged, len(self.seen))
            self.priority.copy_(priority)
            self.seen.copy_(seen)

    @torch.no_grad()
    def update(self, step: Step) -> None:
        """Updates usage and, with `ema`, the codes from the sums of this step, then replaces dead codes and resets.

        Sums are those of all processes, and so are the vectors that may replace dead codes.
        """
        self._sum_processes(step)
        smoothed = self._smooth_usage()
        self.usage.lerp_(self.counts, 1 - self.decay)
        if self.ema:
            self.codes.mul_(self.decay * smoothed).add_(self.sums, alpha=1 - self.decay).div_(self._smooth_usage())
            if self.sphere:
                self.codes.copy_(self._normalize(self.codes))
        if self.revive:
            self._revive_dead()
        self._reset()

    @torch.no_grad()
    def start(self, vectors: Tensor, rng: Rng) -> None:
        """Initialises the codes with k-means centres.

        Args:
            vectors: `n c`.
            rng: Source of the k-means++ draws.

        Raises:
            ValueError: If there are no vectors.
        """
        if not len(vectors):
            raise ValueError(f"{self._owner} expects features to initialise its codes from, got none")
        self.codes.copy_(self._normalize(kmeans(vectors, self.codes, rng)))
        self.usage.fill_(1)
        self._reset()

    def _normalize(self, codes: Tensor) -> Tensor:
        return F.normalize(codes, dim=-1) if self.sphere else codes

    def _smooth_usage(self) -> Tensor:
        """Computes the Laplace-smoothed usage, `k 1`."""
        total = self.usage.sum()
        return ((self.usage + _TINY) / (total + len(self.usage) * _TINY) * total)[:, None]

    def _sum_processes(self, step: Step) -> None:
        """Puts the sums over processes and the vectors of lowest priority among all in place of this process's own."""
        if step.world == 1:
            return
        self.counts.copy_(step.total(self.counts))
        if self.ema:
            self.sums.copy_(step.total(self.sums))
        if self.revive:
            num = len(self.priority)
            every = step.gather(self.priority)
            kept = every.argsort(stable=True)[:num]  # as in `keep_lowest`, though each knows only its own vectors
            mine, own = kept // num == step.rank, kept % num
            self.seen.copy_(step.total(torch.where(mine[:, None], self.seen[own], torch.zeros_like(self.seen))))
            self.priority.copy_(every[kept])

    def _revive_dead(self) -> None:
        """Replaces the i-th dead code by the i-th stored vector, if there is one, and its usage by the mean."""
        mean = self.usage.mean()
        dead = self.usage < self.revive * mean
        source = (dead.cumsum(0) - 1).clamp_min(0)
        dead &= self.priority[source] < _UNSEEN
        torch.where(dead[:, None], self.seen[source], self.codes, out=self.codes)
        self.usage.copy_(torch.where(dead, mean, self.usage))

    def _reset(self) -> None:
        self.counts.zero_()
        if self.ema:
            self.sums.zero_()
        if self.revive:
            self.priority.fill_(_UNSEEN)


@torch.no_grad()
def sample_vectors(batches: Iterable[Tensor], limit: int, rng: Rng) -> Tensor:
    """Draws up to `limit` of all vectors uniformly without replacement, `n c`.

    Args:
        batches: Vectors, `b n c` each.
        limit: Maximum number of vectors.
        rng: Source of the draws.

    Examples:
        >>> sample_vectors([torch.zeros(2, 5, 3), torch.ones(2, 5, 3)], 7, Rng(0)).shape
        torch.Size([7, 3])
    """
    priority, kept = torch.empty(0), torch.empty(0, 0)
    for index, vectors in enumerate(batches):
        drawn = rng.at(index).uniform("keep", _allocate_priorities(vectors)).flatten()
        every = rearrange(vectors, "b n c -> (b n) c")
        if index:
            drawn, every = torch.cat([priority, drawn]), torch.cat([kept, every])
        priority, kept = keep_lowest(drawn, every, limit)
    return kept


def keep_lowest(priority: Tensor, vectors: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Keeps the `num` vectors of lowest priority, sorted by it; equal ones keep their order.

    With uniform priorities this is a uniform sample without replacement, in random order. Samples of parts can be
    merged into the sample of the whole, however it was split.

    Args:
        priority: `n`.
        vectors: `n c`.
        num: Number of vectors to keep.

    Examples:
        >>> keep_lowest(torch.tensor([0.5, 0.1, 0.9]), torch.tensor([[5], [1], [9]]), 2)
        (tensor([0.1000, 0.5000]), tensor([[1],
                [5]]))
    """
    order = priority.argsort(stable=True)[:num]
    return priority[order], vectors[order]


@torch.no_grad()
def kmeans(x: Tensor, codebook: Tensor, rng: Rng, *, num_iters: int = 20) -> Tensor:
    """Clusters `x` by Lloyd's iterations after k-means++ seeding, in at least float32.

    If `x` has fewer distinct vectors than there are codes, each becomes a centre and the other codes are kept.

    Args:
        x: Vectors, `n c`, at least one.
        codebook: The current codes, `k c`; they are not modified.
        rng: Source of the k-means++ draws.
        num_iters: Maximum number of Lloyd's iterations; they stop early once no vector changes its code.

    Returns:
        Centres, `k c`, dtype of `codebook`.
    """
    x = widen(x)
    centres = _seed_centres(x, codebook.to(x.dtype, copy=True), rng)
    codes = find_nearest(x, centres)
    for _ in range(num_iters):
        counts = x.new_zeros(len(centres), 1).index_add_(0, codes, x.new_ones(len(x), 1))
        sums = torch.zeros_like(centres).index_add_(0, codes, x)
        centres = torch.where(counts > 0, sums / counts.clamp_min(1), centres)
        codes, previous = find_nearest(x, centres), codes
        if torch.equal(codes, previous):
            break
    return centres.to(codebook.dtype)


def _seed_centres(x: Tensor, centres: Tensor, rng: Rng) -> Tensor:
    """Draws k-means++ seeds: each is a vector, drawn in proportion to its squared distance from the previous ones."""
    chance = torch.ones(len(x), dtype=find_widest(x.device), device=x.device)
    draws = rng.uniform("seeds", torch.empty(len(centres), dtype=torch.float64)).to(chance.dtype).to(x.device)
    distance = x.new_full((len(x),), float("inf"))
    for k, draw in enumerate(draws):
        cumulative = chance.cumsum(0)
        if cumulative[-1] == 0:
            break
        centres[k] = x[torch.searchsorted(cumulative, draw * cumulative[-1], right=True).clamp_max(len(x) - 1)]
        distance = torch.minimum(distance, (x - centres[k]).square().sum(1))
        chance = widen_fully(distance)
    return centres


def _allocate_priorities(vectors: Tensor) -> Tensor:
    """Allocates an uninitialised float32 tensor with one value for each vector, `b n`."""
    return torch.empty(vectors.shape[:2], dtype=torch.float32, device=vectors.device)
