r"""Euler's method on the probability flow, from noise to data.

    x_t = alpha_t x_0 + sigma_t eps
    x_s = alpha_s x_0 + sigma_s eps        s < t, with the predicted x_0 and the eps that follows from it

A sampler takes the schedule and the type of a sample. It provides the `times`, the `start` and the `step` from one time
to the next (`modkit.kinds.Sampler`). `GridSampler` implements everything but the step.

Shape letters: b batch.
"""

from torch import Tensor

from modkit import Rng, TensorType
from modkit.kinds import Denoise, Schedule
from modkit.samplers import GridSampler, space_noise_levels

__all__ = ["Euler"]


class Euler(GridSampler):
    """Euler's method on the probability flow: one network evaluation per step, and no added noise.

    References:
        Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022), algorithm 1,
        https://arxiv.org/abs/2206.00364

    Args:
        steps: Number of steps.

    Raises:
        ValueError: If `steps` is out of range.
    """

    def __init__(self, schedule: Schedule, x: TensorType, *, steps: int = 50) -> None:
        super().__init__(schedule, x, space_noise_levels(self, schedule, steps))

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """Computes x_s from x_t, `b ...`, s < t; the last step has s = 0 and returns the predicted x_0."""
        alpha_t, sigma_t = self.scales(t)
        alpha_s, sigma_s = self.scales(s)
        x_0 = self.predict(denoise, x_t, t).x_0
        eps = (x_t - alpha_t * x_0) / sigma_t
        return alpha_s * x_0 + sigma_s * eps, None
