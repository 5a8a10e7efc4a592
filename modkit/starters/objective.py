r"""An objective whose rate is held to a target: the distance of the KL from a number of nats.

    losses: nll = -log p(x | z),   kl = |sum_g KL_g - target|

An objective draws latents from the evidence that it is given, and computes the losses in nats per sample
(`modkit.kinds.Objective`). This one depends on the mean over the batch other than linearly, and so sums it over the
processes of a training.

Shape letters: b batch, g groups of latent variables.
"""

from torch import Tensor

from modkit.kinds import Draw, Evidence, Step
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

    def __call__(self, evidence: Evidence, step: Step) -> tuple[Draw, dict[str, Tensor]]:
        """Computes `nll`, `b`, and `kl`, the distance of the batch's mean KL from the target, a scalar.

        Raises:
            ValueError: If the bottleneck has no KL.
        """
        draw = evidence.draw()
        if draw.kl is None:
            raise ValueError("Target expects a bottleneck with a KL, got one without")
        mean = draw.kl.sum(1).mean()
        if step.training:
            mean = step.total(mean) / step.world
        return draw, {**draw.nats, "kl": (mean - self.nats).abs()}
