r"""Minibatch discrimination: how near each sample of a batch is to the others, as further features of it.

    M_i = T f_i in R^(kernels x dims),   o_b(i) = sum_(j != i) exp(-|M_ib - M_jb|_1)

The paper's sum has j = i too, which adds one to every feature. Outputs depend on the whole batch.

Shape letters: b batch, d features, k kernels.

References:
    Improved Techniques for Training GANs (Salimans et al., 2016), section 3.2, https://arxiv.org/abs/1606.03498
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MinibatchDiscrimination"]


class MinibatchDiscrimination(nn.Module):
    """Joins to features `b d` their nearness to the batch's other samples, `b k`.

    Memory is linear in the kernels' number times b squared, one kernel after another.

    Args:
        features: Number d of features.
        kernels: Number k of kernels.
        dims: Numbers that a kernel compares.

    Raises:
        ValueError: If a number is below 1.
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
        """`features` and the nearness to the others, `b d+k`."""
        compared = self.project(features).unflatten(1, (self.kernels, -1)).unbind(1)
        near = [torch.exp(-(each[:, None] - each[None]).abs().sum(2)).sum(1) - 1 for each in compared]
        return torch.cat([features, torch.stack(near, 1)], 1)
