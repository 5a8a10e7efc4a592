"""What assemblies ask of a critic beyond its logits: a generator's loss against it, and its feature maps.

Shape letters: b batch, c channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import Adversarial, AdversarialExtras, Critic, Discriminator, DiscriminatorExtras, read_extras
from modkit.precision import widen
from modkit.types import Cond

__all__ = ["compute_generator_loss", "measure_features"]


def compute_generator_loss(adversarial: Adversarial, critic: Critic, fake: Tensor, real: Tensor, cond: Cond) -> Tensor:
    """Computes a generator's loss against a critic; the critic judges `real` only where losses are paired.

    Examples:
        >>> from modkit.losses import Hinge
        >>> compute_generator_loss(Hinge(), lambda x, cond: x.sum(1), torch.ones(2, 3), torch.zeros(2, 3), Cond())
        tensor(-3.)
    """
    fake_logits = critic(fake, cond)
    if not read_extras(adversarial, AdversarialExtras).paired:
        return adversarial.generator(fake_logits)
    with torch.no_grad():
        real_logits = critic(real, cond)
    return adversarial.generator(fake_logits, real_logits)  # type: ignore[call-arg]


def measure_features(critic: Discriminator, fake: Tensor, real: Tensor, cond: Cond) -> Tensor:
    r"""Measures the distance of samples in a critic's deepest features, in nats per sample, `b`.

        1/2 |D_l(real) - D_l(fake)|^2

    It is -log p(D_l(real) | fake) for a Gaussian of unit scale around D_l(fake), but for a constant. Gradients reach
    `fake` alone.

    References:
        Autoencoding beyond pixels using a learned similarity metric (Larsen et al., 2016), eq. 7 and 8,
        https://arxiv.org/abs/1512.09300

    Raises:
        ValueError: If the critic does not offer its feature maps.

    Examples:
        >>> from modkit.nn.mlp import MLPDiscriminator
        >>> from modkit.types import CondType, TensorType
        >>> x = torch.zeros(2, 3)
        >>> measure_features(MLPDiscriminator(TensorType((3,)), CondType()), x, x, Cond()).tolist()
        [0.0, 0.0]
    """
    judge = read_extras(critic, DiscriminatorExtras).judge
    if judge is None:
        raise ValueError(
            f"expected a critic with feature maps (`judge`), got {type(critic).__name__}, which gives logits alone"
        )
    with torch.no_grad():
        wanted = judge(real, cond).maps[-1]
    return (widen(judge(fake, cond).maps[-1]) - widen(wanted)).square().flatten(1).sum(1) / 2
