r"""The transformer's learning rate: it rises linearly, then falls with the root of the step.

    factor = min((k + 1) / w, sqrt(w / (k + 1)))        k the step from 0, w = warmup

A schedule is given the optimizer and the number of the stage's steps, and behaves as torch's do
(`modkit.kinds.LRSchedule`). A part may be a function that makes what its kind asks for, as here.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

__all__ = ["inverse_sqrt"]


def inverse_sqrt(optimizer: Optimizer, steps: int, *, warmup: int = 100) -> LRScheduler:
    """Inverse square-root decay after a linear rise; the rate is at its full height at the rise's end.

    References:
        Attention Is All You Need (Vaswani et al., 2017), eq. 3, https://arxiv.org/abs/1706.03762

    Args:
        optimizer: Whose rates it sets.
        steps: Length of the stage, of which the rate is no function.
        warmup: Steps of the rise.

    Raises:
        ValueError: If `warmup` is below 1.
    """
    if warmup < 1:
        raise ValueError(f"inverse_sqrt expects warmup of at least 1, got {warmup}")
    return LambdaLR(optimizer, lambda step: min((step + 1) / warmup, math.sqrt(warmup / (step + 1))))
