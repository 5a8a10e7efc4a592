"""DDIM: steps that keep the predicted noise or, in any proportion, replace it with fresh noise.

Shape letters: b batch.
"""

from __future__ import annotations

from torch import Tensor

from modkit.diffusion.gaussian import Scales, add_scaled, combine, tau
from modkit.kinds import Denoise, Schedule, default
from modkit.rng import Rng
from modkit.samplers.clipping import Clip
from modkit.samplers.grid import GridSampler, GridSlot, StepGrid, move_spacing
from modkit.types import Share, TensorType, checked

__all__ = ["DDIM", "ddim_step"]


@checked
def ddim_step(
    x_t: Tensor,
    x_0: Tensor,
    scales_t: Scales,
    scales_s: Scales,
    *,
    eta: Share = 0.0,
    rng: Rng | None = None,
) -> Tensor:
    r"""Moves `x_t` to the less noisy `x_s` (s < t), given a prediction of `x_0`.

        x_s = alpha_s x_0 + sigma_s (sqrt(1 - eta^2 tau) eps_hat + eta sqrt(tau) eps)
        eps_hat = (x_t - alpha_t x_0) / sigma_t
        tau = 1 - (alpha_t sigma_s / (alpha_s sigma_t))^2

    `eta=0` is deterministic; `eta=1` draws from the `posterior`. The denoiser is not called.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), eq. 12 and 16,
        https://arxiv.org/abs/2010.02502

    Args:
        x_t: Current sample, `b ...`.
        x_0: Predicted clean sample, shape of `x_t`.
        scales_t: `(alpha_t, sigma_t)`, numbers or `b`; `sigma_t > 0`.
        scales_s: `(alpha_s, sigma_s)` at the target time.
        eta: Share of fresh noise, in [0, 1].
        rng: Source of fresh noise, drawn as `eps`; unused when `eta == 0`.

    Returns:
        `x_s`, shape of `x_t`.

    Raises:
        ValueError: If `eta` is outside [0, 1], or above 0 without an rng.

    Examples:
        >>> import torch
        >>> ddim_step(torch.tensor([[1.4]]), torch.tensor([[1.0]]), (0.6, 0.8), (0.8, 0.6))  # eps_hat = 1
        tensor([[1.4000]])
    """
    alpha_t, sigma_t = scales_t
    alpha_s, sigma_s = scales_s
    fresh = eta**2 * tau(scales_t, scales_s)

    keep = sigma_s * (1 - fresh) ** 0.5 / sigma_t
    x_s = combine(alpha_s - keep * alpha_t, x_0, keep, x_t)
    if eta == 0:
        return x_s
    if rng is None:
        raise ValueError(f"ddim_step expects an rng with eta above 0, got eta {eta} and rng None")
    return add_scaled(x_s, sigma_s * fresh**0.5, rng.normal("eps", x_t))


@checked
class DDIM(GridSampler):
    """DDIM: sampling in few steps that reuse the noise which the model predicts.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), eq. 12, https://arxiv.org/abs/2010.02502

    Args:
        steps: Number of steps, at most the table's length.
        eta: Share of fresh noise: 0 is deterministic, 1 is ancestral sampling.

    Raises:
        ValueError: If `steps` or `eta` is out of range, or `clip` malformed.

    Examples:
        >>> from modkit.diffusion.schedules import Cosine
        >>> sampler = DDIM(Cosine(num=1000), TensorType((3, 8, 8)), steps=4)
        >>> sampler.times()
        tensor([1.0000, 0.7500, 0.5000, 0.2500, 0.0000], dtype=torch.float64)
    """

    expand_params = staticmethod(move_spacing)

    def __init__(
        self,
        schedule: Schedule,
        x: TensorType,
        *,
        steps: int = 50,
        eta: Share = 0.0,
        grid: GridSlot = default("auto"),
        clip: Clip = True,
    ) -> None:
        super().__init__(schedule, x, StepGrid(grid, schedule, x, steps), clip=clip)
        self.eta, self.deterministic = eta, eta == 0

    def step(self, denoise: Denoise, x_t: Tensor, t: Tensor, s: Tensor, state: None, rng: Rng) -> tuple[Tensor, None]:
        """Returns x_s; after the last step, to s = 0, this is the predicted x_0."""
        x_0 = self.predict(denoise, x_t, t).x_0
        return ddim_step(x_t, x_0, self.scales(t), self.scales(s), eta=self.eta, rng=rng), None
