r"""The energy distance between latents and draws of their prior.

    2 E|z - p| - E|z - z'| - E|p - p'|

An aggregate part takes a `LatentBatch`: draws z of q(z | x), flattened, and what it names in `reads` beside them, here
as many draws of the prior (`modkit.kinds.AggregateExtras`). It returns a scalar, and gradients flow to z. With
`gather`, it is given the latents of all processes.

Shape letters: b batch, d values of a latent.
"""

import torch
from torch import Tensor

from modkit import LatentBatch

__all__ = ["Energy"]


class Energy:
    """The energy distance between the latents of a batch and as many draws of the prior, without bias.

    References:
        Energy statistics: A class of statistics based on distances (Székely & Rizzo, 2013),
        https://doi.org/10.1016/j.jspi.2013.03.018

    Args:
        gather: Whether several processes compute it of all latents, as one process would, or each of its own.
    """

    reads = ("prior",)

    def __init__(self, *, gather: bool = True) -> None:
        self.gather = gather

    def __call__(self, latents: LatentBatch) -> Tensor:
        """Returns the distance of z from the prior's draws, both `b d`, a scalar."""
        z, prior = latents.z, latents.require("prior")
        within = _average_others(z) + _average_others(prior)
        return 2 * torch.cdist(z, prior).mean() - within


def _average_others(x: Tensor) -> Tensor:
    """Averages the distances of different rows."""
    return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))
