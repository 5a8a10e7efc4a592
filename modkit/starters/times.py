r"""Logit-normal times: training spends itself on the middle, where there is most to learn.

    t = sigmoid(mean + std n),    n ~ N(0, 1)

Whoever trains a denoiser asks for `num` times in (0, 1], float64 (`modkit.kinds.Times`). Draws come from the rng that
is given, by name, so that sample i of a batch has the same time however the batch is split.

Shape letters: b batch.
"""

import torch
from torch import Tensor

from modkit import Rng
from modkit.kinds import Schedule

__all__ = ["LogitNormal"]


class LogitNormal:
    """Times whose logit is normal; on a table, none is before its first.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), section 3.1,
        https://arxiv.org/abs/2403.03206

    Args:
        mean: Mean of the logit; below 0 favours little noise.
        std: Its standard deviation.

    Raises:
        ValueError: If `std` is not positive.
    """

    def __init__(self, schedule: Schedule, *, mean: float = 0.0, std: float = 1.0) -> None:
        if std <= 0:
            raise ValueError(f"LogitNormal expects std above 0, got {std}")
        self.mean, self.std = mean, std
        self.first = 1 / schedule.num if schedule.num is not None else 0.0

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """`num` times, `b`, float64."""
        normal = rng.normal("time", torch.empty(num, dtype=torch.float64))
        return torch.sigmoid(self.mean + self.std * normal).clamp(self.first, 1)
