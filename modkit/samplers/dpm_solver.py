r"""DPM-Solver++: the exact solution of the probability-flow equation, given an extrapolation D of x_0.

With lambda = log(alpha / sigma) and h = lambda_s - lambda_t,

    x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^{-h}) D
    D = x_0(t)                                              first order (DDIM)
    D = x_0(t) + h / (2 h_r) (x_0(t) - x_0(r))              second order

r is the time before t, and h_r = lambda_t - lambda_r.

Shape letters: b batch.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from modkit.kinds import Denoise, Schedule, default
from modkit.rng import Rng
from modkit.samplers.ddim import ddim_step
from modkit.samplers.grid import Clip, GridSampler, GridSlot, StepGrid, move_spacing
from modkit.types import TensorType

__all__ = ["DPMSolverPlusPlus"]


class _Last(NamedTuple):
    x_0: Tensor
    log_ratio: float  # lambda


class DPMSolverPlusPlus(GridSampler):
    """The multistep solver 2M: second order with one evaluation per step; the first and last step are first order.

    References:
        DPM-Solver++ (Lu et al., 2022), algorithm 2, https://arxiv.org/abs/2211.01095

    Args:
        steps: Number of steps, at most the table's length.
        order: 1 is DDIM, 2 extrapolates from the previous step.

    Raises:
        ValueError: If `steps` or `order` is out of range, or `clip` malformed.

    Examples:
        >>> import modkit, torch
        >>> from modkit.diffusion.schedules import Cosine
        >>> schedule = Cosine()
        >>> def denoise(x_t, t):  # of data N(0, 1)
        ...     return modkit.Denoised(schedule.scales(t)[0] * x_t)
        >>> sampler = DPMSolverPlusPlus(schedule, TensorType((1,)), steps=20)
        >>> x_t = sampler.start(torch.tensor([[1.0], [-0.5]], dtype=torch.float64), sampler.times()[0])
        >>> x = modkit.sample(sampler, denoise, x_t)
        >>> print(f"{x[0, 0] / x_t[0, 0]:.2f}")  # exact: 1, because the flow of these data moves nothing
        1.00
    """

    deterministic = True
    expand_params = staticmethod(move_spacing)

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 20,
        order: Literal[1, 2] = 2,
        grid: GridSlot = default("auto"),
        clip: Clip = True,
    ) -> None:
        if order not in (1, 2):
            raise ValueError(f"DPMSolverPlusPlus expects order 1 or 2, got {order}")
        super().__init__(schedule, x, StepGrid(grid, schedule, x, steps), clip=clip)
        self.order = order

    def step(
        self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: _Last | None, rng: Rng
    ) -> tuple[Tensor, _Last]:
        """Returns x_s; the state is the last prediction of x_0 and the lambda at which it was made."""
        scales_t, scales_s = self.scales(t), self.scales(s)
        x_0 = self.predict(denoise, x_t, t).x_0
        last = _Last(x_0, _log_ratio(scales_t))
        if self.order == 2 and state is not None and scales_s[1] > 0:
            h, h_r = _log_ratio(scales_s) - last.log_ratio, last.log_ratio - state.log_ratio
            x_0 = torch.add(x_0, x_0 - state.x_0, alpha=h / (2 * h_r))
        return ddim_step(x_t, x_0, scales_t, scales_s), last


def _log_ratio(scales: tuple[float, float]) -> float:
    alpha, sigma = scales
    return math.log(alpha) - math.log(sigma)
