r"""UniPC: a multistep predictor, and a corrector that repeats each step with the prediction where it ended.

    x_s  = (sigma_s / sigma_t) x~_t + alpha_s sum_k w_k x_0(k)      k at t and before it: the predictor
    x~_s = (sigma_s / sigma_t) x~_t + alpha_s sum_k w'_k x_0(k)     k at x_s, t and before it: the corrector

The prediction at x_s is the one that the next step needs, so the corrector costs no evaluation.

Shape letters: b batch.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from modkit.kinds import Denoise, Schedule, default
from modkit.rng import Rng
from modkit.samplers.clipping import Clip
from modkit.samplers.grid import GridSlot, StepGrid
from modkit.samplers.multistep import Multistep, Prediction, find_log_ratio
from modkit.types import PositiveInt, TensorType, checked

__all__ = ["UniPC"]


class _State(NamedTuple):
    x_t: Tensor  # corrected
    scales: tuple[float, float]
    past: tuple[Prediction, ...]


@checked
class UniPC(Multistep):
    """UniPC-p with B_2, on x_0: order p + 1 with one evaluation per step.

    The first steps are of lower order, and so is the last, to x_0.

    References:
        UniPC (Zhao et al., 2023), algorithms 5 and 6, https://arxiv.org/abs/2302.04867

    Args:
        steps: Number of steps, at most the table's length.
        order: Number of predictions that the predictor is made from; the corrector has one more.

    Raises:
        ValueError: If `steps` is out of range, `order` below 1, or `clip` malformed.

    Examples:
        >>> import modkit, torch
        >>> from modkit.diffusion.schedules import Cosine
        >>> schedule = Cosine()
        >>> def denoise(x_t, t):  # of data N(0, 1)
        ...     return modkit.Denoised(schedule.scales(t)[0] * x_t)
        >>> sampler = UniPC(schedule, TensorType((1,)), steps=10)
        >>> x_t = sampler.start(torch.tensor([[1.0], [-0.5]], dtype=torch.float64), sampler.times()[0])
        >>> x = modkit.sample(sampler, denoise, x_t)
        >>> print(f"{x[0, 0] / x_t[0, 0]:.2f}")  # exact: 1, because the flow of these data moves nothing
        1.00
    """

    corrects = True

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 20,
        order: PositiveInt = 2,
        grid: GridSlot = default("auto"),
        clip: Clip = True,
    ) -> None:
        super().__init__(schedule, x, StepGrid(grid, schedule, x, steps), order=order, clip=clip)

    def step(
        self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: _State | None, rng: Rng
    ) -> tuple[Tensor, _State]:
        """Corrects x_t, and returns x_s as predicted from it; the state is what the next correction needs."""
        scales_t = self.scales(t)
        new = Prediction(find_log_ratio(scales_t), self.predict(denoise, x_t, t).x_0)
        if state is not None:
            x_t = self.integrate(state.x_t, state.scales, scales_t, (*state.past, new), rng)
        past = self.keep(new, state.past if state else ())
        return self.integrate(x_t, scales_t, self.scales(s), past, rng), _State(x_t, scales_t, past)
