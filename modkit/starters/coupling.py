r"""A coupling that gives each sample the nearest of several draws of noise.

    eps = argmin_i |x_0 - n_i|,    n_1, ..., n_num ~ N(0, I)

A coupling draws the noise that each sample is trained to come from (`modkit.kinds.Coupling`). This one looks at a
sample alone, so that training does not depend on how a batch is split. The noise is only nearly normal over the data.

Shape letters: k draws, b batch.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from modkit import Rng
from modkit.types import PositiveInt, checked

__all__ = ["Nearest"]


@checked
class Nearest:
    """The nearest of a few draws of noise.

    References:
        Improved Immiscible Diffusion: Accelerate Diffusion Training by Reducing Its Miscibility (Li et al., 2025),
        https://arxiv.org/abs/2505.18521

    Args:
        num: Number of draws; 1 is independent noise. The more there are, the less normal the noise is.

    Raises:
        ValueError: If `num` is below 1.
    """

    def __init__(self, *, num: PositiveInt = 4) -> None:
        self.num = num
        self.independent = num == 1

    def __call__(self, x_0: Tensor, fields: Mapping[str, Tensor], rng: Rng) -> Tensor:
        """Draws eps, shape of `x_0`, `b ...`."""
        draws = torch.stack([rng.at("draw", index).normal("eps", x_0) for index in range(self.num)])
        distance = (draws - x_0).flatten(2).square().sum(2)  # k b
        return draws[distance.argmin(0), torch.arange(len(x_0), device=x_0.device)]
