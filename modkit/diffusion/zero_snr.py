r"""Zero terminal SNR: a table whose last index is pure noise.

    sqrt(ac'_i) = (sqrt(ac_i) - sqrt(ac_T)) sqrt(ac_1) / (sqrt(ac_1) - sqrt(ac_T))

The first index keeps its noise, the last has none of the signal (beta = 1). As `flow` does, the table keeps 2^-24 of
it, which float32 cannot distinguish from none; so the logarithm of its noise level is finite.

Shape letters: n table.
"""

from __future__ import annotations

import torch

from modkit.diffusion.schedules import LEAST_SIGNAL, Table
from modkit.kinds import Schedule, Slot, default
from modkit.parts.filling import fill_slot
from modkit.types import TensorType

__all__ = ["ZeroTerminalSNR"]


class ZeroTerminalSNR(Table):
    """Another schedule's table, rescaled so that x_t at t = 1 is pure noise, from which samples start.

    The network cannot predict the noise there (`eps` is refused): it predicts v, x0 or the flow's velocity.

    References:
        Common Diffusion Noise Schedules and Sample Steps are Flawed (Lin et al., 2023), algorithm 1,
        https://arxiv.org/abs/2305.08891

    Args:
        x: Type of the data.
        schedule: The schedule with the table.

    Raises:
        ValueError: If the schedule has no table of two indices or more.

    Examples:
        >>> from modkit.diffusion.schedules import Linear
        >>> alpha, _ = ZeroTerminalSNR(schedule=Linear).scales(torch.tensor([0.001, 0.5, 1.0]))
        >>> [f"{value:.4f}" for value in alpha.tolist()]
        ['0.9999', '0.2757', '0.0000']
    """

    def __init__(self, x: TensorType | None = None, *, schedule: Slot[Schedule] = default("linear")) -> None:
        table = fill_slot("schedule", schedule, x=x)
        num = table.num
        if num is None or num < 2:
            expected = "a schedule with a table of 2 or more"
            raise ValueError(f"ZeroTerminalSNR expects {expected}, got {type(table).__name__} of num {num}")
        t = torch.arange(num + 1, dtype=torch.float64, device="cpu") / num
        alpha, sigma = table.scales(t)
        alpha = alpha / torch.sqrt(alpha**2 + sigma**2)
        first, last = alpha[1], alpha[-1]
        rescaled = ((alpha - last) * first / (first - last)).clamp(LEAST_SIGNAL, 1)
        super().__init__(1 - (rescaled[1:] / rescaled[:-1]) ** 2)
