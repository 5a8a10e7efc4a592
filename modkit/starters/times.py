r"""Logit-normal time sampling: training focuses on intermediate noise levels.

    t = sigmoid(mean + std n),    n ~ N(0, 1)

Time sampling draws `num` times in (0, 1], float64, for training a denoiser (`modkit.kinds.Times`). Draws come from the
given rng by name, so that sample i of a batch has the same time however the batch is split.

Shape letters: b batch.
"""

import torch
from torch import Tensor

from modkit import Rng
from modkit.kinds import Schedule
from modkit.types import PositiveFloat, checked

__all__ = ["LogitNormal"]


@checked
class LogitNormal:
    """Draws times whose logits are normal; for a schedule with a table, not before its first time.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), section 3.1,
        https://arxiv.org/abs/2403.03206

    Args:
        mean: Mean of the logit; below 0 favours little noise.
        std: Standard deviation of the logit.

    Raises:
        ValueError: If `std` is not positive.
    """

    def __init__(self, schedule: Schedule, *, mean: float = 0.0, std: PositiveFloat = 1.0) -> None:
        self.mean, self.std = mean, std
        self.first = 1 / schedule.num if schedule.num is not None else 0.0

    def __call__(self, num: int, rng: Rng) -> Tensor:
        """Draws `num` times, `b`, float64."""
        normal = rng.normal("time", torch.empty(num, dtype=torch.float64))
        return torch.sigmoid(self.mean + self.std * normal).clamp(self.first, 1)
