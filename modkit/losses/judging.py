"""What assemblies ask of a critic beyond its logits: a generator's loss against it, its feature maps, and its heads.

Shape letters: b batch, c channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from modkit.kinds import Adversarial, AdversarialExtras, Critic, Discriminator, DiscriminatorExtras, read_extras
from modkit.precision import widen
from modkit.types import Cond, Judgement

__all__ = ["compute_class_loss", "compute_generator_loss", "compute_loss_of_logits", "judge", "measure_features"]


def compute_generator_loss(adversarial: Adversarial, critic: Critic, fake: Tensor, real: Tensor, cond: Cond) -> Tensor:
    """Computes a generator's loss against a critic; the critic judges `real` only where losses are paired.

    Examples:
        >>> from modkit.losses import Hinge
        >>> compute_generator_loss(Hinge(), lambda x, cond: x.sum(1), torch.ones(2, 3), torch.zeros(2, 3), Cond())
        tensor(-3.)
    """
    return compute_loss_of_logits(adversarial, critic(fake, cond), lambda: critic(real, cond))


def compute_loss_of_logits(adversarial: Adversarial, fake_logits: Tensor, judge_real: Callable[[], Tensor]) -> Tensor:
    """Computes a generator's loss of its fakes' logits; reals are judged, without gradients, where losses are paired.

    Examples:
        >>> from modkit.losses import Hinge
        >>> compute_loss_of_logits(Hinge(), torch.ones(2), lambda: torch.zeros(2))
        tensor(-1.)
    """
    if not read_extras(adversarial, AdversarialExtras).paired:
        return adversarial.generator(fake_logits)
    with torch.no_grad():
        real_logits = judge_real()
    return adversarial.generator(fake_logits, real_logits.detach())  # type: ignore[call-arg]


def judge(critic: Critic, x: Tensor, cond: Cond) -> Judgement:
    """Judges samples by all that a critic tells of them.

    Raises:
        ValueError: If the critic gives only logits.

    Examples:
        >>> from modkit.nn.mlp import MLPDiscriminator
        >>> from modkit.types import CondType, TensorType
        >>> critic = MLPDiscriminator(TensorType((3,)), CondType(), {"labels": 10})
        >>> judge(critic, torch.zeros(2, 3), Cond()).heads["labels"].shape
        torch.Size([2, 10])
    """
    own = read_extras(critic, DiscriminatorExtras).judge
    if own is None:
        raise ValueError(
            f"expected a critic with feature maps (`judge`), got {type(critic).__name__}, which gives logits alone"
        )
    return own(x, cond)


def compute_class_loss(judgement: Judgement, head: str, fields: Mapping[str, Tensor]) -> Tensor:
    r"""Computes the cross-entropy of a head, logits of the classes in the field of its name, in nats: a scalar.

        -E log P(C = c | x)

    References:
        Conditional Image Synthesis with Auxiliary Classifier GANs (Odena et al., 2017), eq. 3,
        https://arxiv.org/abs/1610.09585

    Examples:
        >>> told = Judgement(torch.zeros(2), (), {"labels": torch.zeros(2, 4)})
        >>> compute_class_loss(told, "labels", {"labels": torch.tensor([1, 3])})
        tensor(1.3863)
    """
    return F.cross_entropy(widen(judgement.heads[head]), fields[head].long())


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
    with torch.no_grad():
        wanted = judge(critic, real, cond).maps[-1]
    return (widen(judge(critic, fake, cond).maps[-1]) - widen(wanted)).square().flatten(1).sum(1) / 2
