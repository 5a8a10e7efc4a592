r"""The transformer's learning rate schedule: a linear rise, then a decay with the square root of the step.

    factor = min((k + 1) / w, sqrt(w / (k + 1)))        k is the step from 0, w = warmup

A learning rate schedule takes the optimizer and the number of steps in the stage, and behaves like torch's schedulers
(`modkit.kinds.LRSchedule`). A part may be a function that returns the object, as here.
"""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from modkit.types import PositiveInt, checked

__all__ = ["inverse_sqrt"]


@checked
def inverse_sqrt(optimizer: Optimizer, steps: int, *, warmup: PositiveInt = 100) -> LRScheduler:
    """Makes a schedule with a linear rise and an inverse square root decay; the rate peaks at the end of the rise.

    References:
        Attention Is All You Need (Vaswani et al., 2017), eq. 3, https://arxiv.org/abs/1706.03762

    Args:
        optimizer: The optimizer whose learning rates it sets.
        steps: Length of the stage; the rate does not depend on it.
        warmup: Number of steps of the rise.

    Raises:
        ValueError: If `warmup` is below 1.
    """
    return LambdaLR(optimizer, lambda step: min((step + 1) / warmup, math.sqrt(warmup / (step + 1))))
