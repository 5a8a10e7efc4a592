r"""DPM-Solver++: the exact solution of the probability flow, given an extrapolation D of x_0; with noise, of an SDE.

    x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^{-h}) D        h = lambda_s - lambda_t, lambda = log(alpha / sigma)
    D = x_0(t)                                                  first order (DDIM)
    D = x_0(t) + h / (2 h_r) (x_0(t) - x_0(r))                  second order

r is the time before t, and h_r = lambda_t - lambda_r. The third order extrapolates from three predictions
(`modkit.samplers.multistep`).

Shape letters: b batch.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from torch import Tensor

from modkit.kinds import Denoise, Own, Schedule, default
from modkit.rng import Rng
from modkit.samplers.clipping import Clip
from modkit.samplers.grid import GridSlot, StepGrid, move_spacing
from modkit.samplers.multistep import Multistep, Prediction, find_log_ratio
from modkit.types import Range, TensorType, checked

__all__ = ["DPMSolverPlusPlus"]

Rate: TypeAlias = Annotated[
    float,
    "Rate of fresh noise: 0 is deterministic, 1 the reversed forward process, as in DDIM; between them it is not "
    "DDIM's share of the noise's deviation.",
    Own,
    Range(0, 1),
]


@checked
class DPMSolverPlusPlus(Multistep):
    """The multistep solvers 2M and 3M, with `eta` 2M SDE and 3M SDE; one evaluation per step.

    The first steps are of lower order, and so is the last, to x_0. The third order differs from that of diffusers,
    k-diffusion and the authors' code, which is in effect of second order; see `modkit.samplers.multistep`.

    References:
        DPM-Solver++ (Lu et al., 2022), algorithm 2 and appendix A, https://arxiv.org/abs/2211.01095

    Args:
        steps: Number of steps, at most the table's length.
        order: 1 is DDIM; 2 and 3 extrapolate from as many predictions.

    Raises:
        ValueError: If `steps`, `order` or `eta` is out of range, or `clip` malformed.

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

    expand_params = staticmethod(move_spacing)

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 20,
        order: Literal[1, 2, 3] = 2,
        eta: Rate = 0.0,
        grid: GridSlot = default("auto"),
        clip: Clip = True,
    ) -> None:
        super().__init__(schedule, x, StepGrid(grid, schedule, x, steps), order=order, eta=eta, clip=clip)

    def step(
        self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: tuple[Prediction, ...] | None, rng: Rng
    ) -> tuple[Tensor, tuple[Prediction, ...]]:
        """Returns x_s; the state is the last predictions of x_0."""
        scales_t = self.scales(t)
        new = Prediction(find_log_ratio(scales_t), self.predict(denoise, x_t, t).x_0)
        past = self.keep(new, state or ())
        return self.integrate(x_t, scales_t, self.scales(s), past, rng), past
