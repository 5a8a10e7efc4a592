r"""A rate held to a target: the distance of the KL from a number of nats.

    loss = |sum_g KL_g - target|

A rate makes the loss `kl` of the KL by group, `b g`, in nats per sample (`modkit.kinds.Rate`). This one depends on the
mean over the batch other than linearly, and so sums it over the processes of a training.

Shape letters: b batch, g groups of latent variables.
"""

from torch import Tensor

from modkit.kinds import Step
from modkit.types import NonNegativeFloat, checked

__all__ = ["Target"]


@checked
class Target:
    """Holds the KL to a target: a point of the rate-distortion curve, chosen by its rate.

    References:
        Fixing a Broken ELBO (Alemi et al., 2018), section 4, https://arxiv.org/abs/1711.00464

    Args:
        nats: The KL of a sample to be reached, in nats.

    Raises:
        ValueError: If `nats` is negative.
    """

    def __init__(self, *, nats: NonNegativeFloat = 10.0) -> None:
        self.nats = nats

    def __call__(self, kl: Tensor, step: Step) -> Tensor:
        """Returns the distance of the batch's mean KL from the target, a scalar."""
        mean = kl.sum(1).mean()
        if step.training:
            mean = step.total(mean) / step.world
        return (mean - self.nats).abs()
