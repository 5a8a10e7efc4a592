r"""Consistency sampling: each step predicts x_0 and adds fresh noise.

    x_s = alpha_s (x_0 + sqrt(max(tau^2 - tau_min^2, 0)) eps)        tau = sigma_s / alpha_s

tau_min is the schedule's lowest noise level, the paper's epsilon. There the network is the identity, so that its x_0
has as much noise already.

Shape letters: b batch.
"""

from __future__ import annotations

from torch import Tensor

from modkit.diffusion.gaussian import combine
from modkit.diffusion.schedules import find_noise_range
from modkit.kinds import Denoise, Schedule, default
from modkit.rng import Rng
from modkit.samplers.clipping import Clip
from modkit.samplers.grid import GridSampler, GridSlot, StepGrid
from modkit.types import TensorType

__all__ = ["Consistency"]


class Consistency(GridSampler):
    """Multistep consistency sampling, for networks that map x_t to the end of its path, such as distilled ones.

    One that is trained to denoise predicts a mean, which is smoother than the data with each step: a model of digits
    has an FD of 1.9 in 200 steps, and of .4 in 50 of `ddim`. Training `diffusion` with this sampler is refused.

    References:
        Consistency Models (Song et al., 2023), algorithm 1, https://arxiv.org/abs/2303.01469

    Args:
        steps: Number of steps.

    Raises:
        ValueError: If `steps` is out of range, or `clip` malformed.

    Examples:
        >>> import modkit, torch
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule = EDM(sigma_max=80.0)
        >>> def denoise(x_t, t):  # the end of the path from x_t, for data N(0, 1)
        ...     return modkit.Denoised(x_t / torch.sqrt(1 + schedule.scales(t)[1] ** 2))
        >>> sampler = Consistency(schedule, TensorType((1,)), steps=2)
        >>> x_t = sampler.start(Rng(0).normal("start", torch.empty(5000, 1)), sampler.times()[0])
        >>> print(f"{modkit.sample(sampler, denoise, x_t, seed=0).std():.1f}")
        1.0
    """

    distilled = True

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 2,
        grid: GridSlot = default("auto"),
        clip: Clip = True,
    ) -> None:
        super().__init__(schedule, x, StepGrid(grid, schedule, x, steps), clip=clip)

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """Returns x_s; after the last step, to s = 0, this is the predicted x_0."""
        alpha_s, sigma_s = self.scales(s)
        x_0 = self.predict(denoise, x_t, t).x_0
        if sigma_s == 0:
            return alpha_s * x_0, None
        lowest = find_noise_range(self.schedule)[0]
        added = alpha_s * max((sigma_s / alpha_s) ** 2 - lowest**2, 0.0) ** 0.5
        return combine(alpha_s, x_0, added, rng.normal("eps", x_t)), None
