r"""The energy distance between latents and draws of their prior.

    2 E|z - p| - E|z - z'| - E|p - p'|

A judge is given the name of its term, and computes losses of what a model makes: of the members of a `Round` that it
names in `needs`, here the latents z and their prior. It returns unweighted scalars by term, as far as the step wants
them, and gradients flow to z. With `latent`, its losses are in nats per sample, as a KL (`modkit.kinds.JudgeExtras`).

Shape letters: b batch, d values of a latent.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from modkit.judges import read_rows
from modkit.kinds import Round, Step

__all__ = ["Energy"]


class Energy:
    """The energy distance between the latents of a batch and as many draws of the prior, without bias.

    References:
        Energy statistics: A class of statistics based on distances (Székely & Rizzo, 2013),
        https://doi.org/10.1016/j.jspi.2013.03.018

    Args:
        name: The name of its term.
        gather: Whether several processes compute it of all latents, as one process would, or each of its own.
    """

    needs = ("z", "prior")
    latent = True

    def __init__(self, name: str, *, gather: bool = True) -> None:
        self.name, self.gather = name, gather

    def losses(self, round: Round, step: Step) -> Mapping[str, Tensor]:
        """Returns the distance of z from the prior's draws, both `b d`."""
        if not step.wants(self.name):
            return {}
        z, prior = read_rows(round, self.needs, step if self.gather and step.training else None)
        within = _average_others(z) + _average_others(prior)
        return {self.name: 2 * torch.cdist(z, prior).mean() - within}


def _average_others(x: Tensor) -> Tensor:
    """Averages the distances of different rows."""
    return torch.cdist(x, x).sum() / (len(x) * (len(x) - 1))
