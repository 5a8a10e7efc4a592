r"""Euler's method on the probability-flow equation of u = x_t / alpha_t.

    du / dsigma = (u - x_0(u; sigma)) / sigma = eps_hat,    sigma = sigma_t / alpha_t

A step in u, multiplied by alpha_s, is `alpha_s x_0 + sigma_s eps_hat` in x: DDIM's step with eta = 0. The samplers
differ in their default grid, which may leave a table's indices here.

Shape letters: b batch.
"""

from __future__ import annotations

from torch import Tensor

from modkit.kinds import Denoise, Schedule, default
from modkit.rng import Rng
from modkit.samplers.clipping import Clip
from modkit.samplers.ddim import ddim_step
from modkit.samplers.grid import GridSampler, GridSlot, StepGrid, move_spacing
from modkit.types import TensorType

__all__ = ["Euler"]


class Euler(GridSampler):
    """Euler's method, by default on the grid `continuous`: first order, one evaluation per step, deterministic.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), eq. 4 and 5,
        https://arxiv.org/abs/2206.00364

    Args:
        steps: Number of steps.

    Raises:
        ValueError: If `steps` is out of range, or `clip` malformed.

    Examples:
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM(sigma_min=0.002, sigma_max=80.0)
        >>> alpha, sigma = schedule.scales(Euler(schedule, TensorType((3, 8, 8)), steps=4).times())
        >>> [f"{level:.3g}" for level in sigma.tolist()]
        ['80', '17.5', '2.52', '0.17', '0']
    """

    deterministic = True
    expand_params = staticmethod(move_spacing)

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 50,
        grid: GridSlot = default("continuous"),
        clip: Clip = True,
    ) -> None:
        super().__init__(schedule, x, StepGrid(grid, schedule, x, steps), clip=clip)

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """Returns x_s; after the last step, to s = 0, this is the predicted x_0."""
        x_0 = self.predict(denoise, x_t, t).x_0
        return ddim_step(x_t, x_0, self.scales(t), self.scales(s)), None
