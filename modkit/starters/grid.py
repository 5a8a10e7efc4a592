r"""Times at a power of even ones.

    t_i = (1 - i / n)^p        i = 0, ..., n

A grid takes the schedule and the type of a sample, those of them that it needs. It is called with a number of steps,
and returns the times that a sampler visits (`modkit.kinds.Grid`).

Shape letters: n times.
"""

import torch
from torch import Tensor

from modkit.types import PositiveFloat, checked

__all__ = ["Power"]


@checked
class Power:
    """A power of even times: above 1 there are more steps where there are data. It needs no schedule.

    References:
        Denoising Diffusion Implicit Models (Song et al., 2021), appendix D.2, https://arxiv.org/abs/2010.02502

    Args:
        exponent: The p above.

    Raises:
        ValueError: If `exponent` is not positive.
    """

    def __init__(self, *, exponent: PositiveFloat = 2.0) -> None:
        self.exponent = exponent

    def __call__(self, steps: int) -> Tensor:
        """The times, `steps + 1`, float64 on the CPU, from 1 down to 0."""
        if steps < 1:
            raise ValueError(f"Power expects steps of at least 1, got {steps}")
        return torch.linspace(1, 0, steps + 1, dtype=torch.float64, device="cpu") ** self.exponent
