r"""Minibatch discrimination: features that tell how close each sample of a batch is to the others.

    M_i = T f_i in R^(kernels x dims),   o_b(i) = sum_(j != i) exp(-|M_ib - M_jb|_1)

The sum in the paper includes j = i, which adds one to every feature. Outputs depend on the whole batch.

Shape letters: b batch, d features, k kernels.

References:
    Improved Techniques for Training GANs (Salimans et al., 2016), section 3.2, https://arxiv.org/abs/1606.03498
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

__all__ = ["MinibatchDiscrimination"]


class MinibatchDiscrimination(nn.Module):
    """Concatenates features `b d` with their closeness to the batch's other samples, `b k`.

    Kernels are evaluated one after another; memory grows with k b^2.

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

    def __init__(self, features: int, kernels: int, dims: int = 5) -> None:
        super().__init__()
        if min(features, kernels, dims) < 1:
            raise ValueError(
                f"MinibatchDiscrimination expects numbers of at least 1, got {features}, {kernels}, {dims}"
            )
        self.kernels = kernels
        self.project = nn.Linear(features, kernels * dims, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Computes `features` and their closeness to the other samples', `b d+k`."""
        compared = rearrange(self.project(features), "b (k dims) -> k b dims", k=self.kernels)
        near = [torch.exp(-(each[:, None] - each[None]).abs().sum(2)).sum(1) - 1 for each in compared]
        return torch.cat([features, torch.stack(near, 1)], 1)
