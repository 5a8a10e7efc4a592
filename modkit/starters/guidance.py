r"""Guidance in an interval: classifier-free guidance at some times, the conditional denoiser at all others.

    x_0 = x_0_null + scale (x_0_cond - x_0_null)     low <= t <= high,    else x_0_cond

A guidance returns the denoiser to sample with (`modkit.kinds.Guidance`), which maps (x_t, t) to a prediction of x_0; t
is one number for the whole batch. It asks for the predictions that it combines by name: `cond` with the conditions,
`null` without. Those that it asks for together are computed in one batch.

Shape letters: b batch.
"""

from torch import Tensor

from modkit import Denoised
from modkit.kinds import Denoise, Sides

__all__ = ["Interval"]


class Interval:
    """Applies classifier-free guidance at some times only, which halves the evaluations at all others.

    References:
        Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models
        (Kynkäänniemi et al., 2024), eq. 5 and 6, https://arxiv.org/abs/2404.07724

    Args:
        scale: Guidance scale; 1 gives the conditional prediction, 0 the unconditional one.
        low: The lowest guided time; 0 is clean data.
        high: The highest guided time.

    Raises:
        ValueError: If not 0 <= low < high <= 1.
    """

    def __init__(self, *, scale: float = 2.0, low: float = 0.2, high: float = 0.8) -> None:
        if not 0 <= low < high <= 1:
            raise ValueError(f"Interval expects 0 <= low < high <= 1, got {low} and {high}")
        self.scale, self.low, self.high = scale, low, high

    def __call__(self, sides: Sides) -> Denoise:
        """Returns the guided denoiser."""

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            if not self.low <= float(t) <= self.high:
                return sides(x_t, t, "cond")[0]
            cond, null = sides(x_t, t, "cond", "null")
            return Denoised(null.x_0 + self.scale * (cond.x_0 - null.x_0), cond.v)

        return denoise
