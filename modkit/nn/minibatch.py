r"""Minibatch discrimination: features that tell how close each sample of a batch is to the others.

    M_i = T f_i in R^(kernels x dims),   o_b(i) = sum_(j != i) exp(-|M_ib - M_jb|_1)

The sum in the paper includes j = i, which adds one to every feature. Outputs depend on the whole batch.

All pairs, `b b k n`, are compared by one expression. Where they take more than 64 MiB (8 on a CPU), blocks of samples i
that take as much are compared one after another, and computed again in the backward pass instead of being kept.

Shape letters: b batch, d features, k kernels, n dimensions of a kernel.

References:
    Improved Techniques for Training GANs (Salimans et al., 2016), section 3.2, https://arxiv.org/abs/1606.03498
"""

from __future__ import annotations

from functools import partial

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from modkit.precision import widen
from modkit.types import PositiveInt, checked

__all__ = ["MinibatchDiscrimination"]

_BYTES = 2**26  # of the pairs that are compared at once
_CPU_BYTES = 2**23  # as much as caches hold: on two CPUs it is as fast as more for 64 samples, and twice for 256


@checked
class MinibatchDiscrimination(nn.Module):
    """Concatenates features `b d` with their closeness to the batch's other samples, `b k`.

    Args:
        features: Number d of features.
        kernels: Number k of kernels.
        dims: Dimension of the space in which a kernel compares samples.

    Raises:
        ValueError: If a number is below 1.

    Examples:
        >>> MinibatchDiscrimination(8, kernels=3)(torch.zeros(2, 8)).shape
        torch.Size([2, 11])
    """

    def __init__(self, features: PositiveInt, kernels: PositiveInt, dims: PositiveInt = 5) -> None:
        super().__init__()
        self.kernels = kernels
        self.project = nn.Linear(features, kernels * dims, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Computes `features` and their closeness to the other samples', `b d+k`."""
        vectors = rearrange(widen(self.project(features)), "b (k n) -> b k n", k=self.kernels)
        limit = _CPU_BYTES if vectors.device.type == "cpu" else _BYTES
        blocks = torch.split(vectors, max(1, limit // max(1, vectors.nbytes)))
        if len(blocks) == 1:
            near = _compare(vectors, vectors)
        else:
            compare = partial(checkpoint, _compare, use_reentrant=False, preserve_rng_state=False)
            near = torch.cat([compare(block, vectors) for block in blocks])
        return torch.cat([features, near.to(features.dtype)], 1)


def _compare(some: Tensor, vectors: Tensor) -> Tensor:
    """Sums over all vectors `b k n` how near they are to each of some, without itself, `r b k n -> r k`."""
    distances = (some[:, None] - vectors).abs().sum(-1)
    return torch.exp(-distances).sum(1) - 1
