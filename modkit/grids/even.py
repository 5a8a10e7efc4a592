"""Even: equal steps in t, which a shift makes denser where there is noise, or data.

    t_i = s (1 - i/n) / (1 + (s - 1) (1 - i/n))

Shape letters: n times.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.grids.steps import check_steps
from modkit.kinds import Schedule
from modkit.types import PositiveFloat, TensorType, checked

__all__ = ["Even"]


@checked
class Even:
    """Equal steps in t from 1, which are rounded to the indices of a table; shifted times are not.

    Of a table, a shift below 1 must leave the last time above 0 at the first index or above it.

    References:
        Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024), eq. 23,
        https://arxiv.org/abs/2403.03206

    Args:
        shift: The s above: above 1 there are more steps where there is noise, below 1 where there are data.

    Raises:
        ValueError: If `shift` is not positive, `steps` is below 1 or above a table's length, or a time is below a
            table's first.

    Examples:
        >>> from modkit.diffusion.schedules import Flow
        >>> Even(Flow())(4)
        tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
        >>> Even(Flow(), shift=3.0)(4)
        tensor([1.0000, 0.9000, 0.7500, 0.5000, 0.0000], dtype=torch.float64)
    """

    def __init__(self, schedule: Schedule, x: TensorType | None = None, *, shift: PositiveFloat = 1.0) -> None:
        self.schedule = schedule
        self.shift = shift

    def __call__(self, steps: int) -> Tensor:
        """The times of `steps` steps, `steps + 1`, float64 on the CPU, descending, the last 0."""
        check_steps(self, steps, self.schedule)
        index, num = torch.arange(steps + 1, dtype=torch.float64, device="cpu"), self.schedule.num
        if num is not None and self.shift == 1:
            return torch.round(num - index * (num / steps)) / num
        t = 1 - index / steps
        times = self.shift * t / (1 + (self.shift - 1) * t)
        if num is not None and (last := float(times[-2]) * num) < 1 - 1e-9:
            got = f"{last:.3g}/{num} in {steps} steps with the shift {self.shift:g}"
            raise ValueError(f"Even expects times of at least 1/{num}, the table's first, got {got}")
        return times
