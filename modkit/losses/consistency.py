r"""Consistency: a critic judges a sample and its augmented copy alike.

    penalty = real E (D(x) - D(T(x)))^2 + fake E (D(G(z)) - D(T(G(z))))^2

T changes what does not matter for whether a sample is real. A map of x's shape beside it is changed by the same draws:
a critic of pairs must see whether the two belong together. Unlike `augment` of a Model, T shows the critic's opponent
nothing. Beside one, D augments x and T(x) by the same draws: only T tells them apart.

Shape letters: b batch.

References:
    Consistency Regularization for Generative Adversarial Networks (Zhang et al., 2020), eq. 3 and 4,
    https://arxiv.org/abs/1910.12027
    Improved Consistency Regularization for GANs (Zhao et al., 2021), section 3.1 (balanced),
    https://arxiv.org/abs/2002.04724
"""

from __future__ import annotations

import torch
from torch import Tensor

from modkit.kinds import Augmentation, AugmentationExtras, Round, Slot, default, read_extras
from modkit.losses.augmented import change_pair, share_draws
from modkit.precision import widen
from modkit.types import NonNegativeFloat, TensorType, checked

__all__ = ["Consistency"]


@checked
class Consistency:
    """The squared change of logits by an augmentation, at real and at generated samples.

    The weights are the papers', for critics with spectral norm. Beside R1 they may hold a critic back altogether: the
    `dcgan` of digits then has forty times the FD of only R1, and with weights of 1 still seven times.

    Args:
        x: Type of the data.
        augment: The augmentation T, of constant strength. A map of another shape than x stays as it is: beside one,
            T should not move x.
        real: Weight at real samples.
        fake: Weight at generated samples; 0 is CR-GAN's penalty, and otherwise it is the balanced one (bCR).

    Raises:
        ValueError: If a weight is negative, or the augmentation's strength follows the game.

    Examples:
        >>> from modkit import Cond, Rng
        >>> part = Consistency(TensorType((3,)), augment=lambda x: lambda x, rng: 2 * x)
        >>> x = torch.ones(4, 3)
        >>> part(Round(x, Cond(), Rng(0), fake=0 * x, critic=lambda x, cond: x.sum(1)))  # 10 (3 - 6)^2
        tensor(90.)
    """

    needs = ("fake",)

    def __init__(
        self,
        x: TensorType,
        *,
        augment: Slot[Augmentation] = default("diffaugment"),
        real: NonNegativeFloat = 10.0,
        fake: NonNegativeFloat = 10.0,
    ) -> None:
        self.augment: Augmentation = augment(x=x)
        if read_extras(self.augment, AugmentationExtras).update:
            raise ValueError(
                f"Consistency expects an augmentation of constant strength, got {type(self.augment).__name__}, whose "
                "strength follows a game"
            )
        self.weights = {"real": real, "fake": fake}

    def __call__(self, round: Round) -> Tensor:
        """The penalty, a scalar; gradients reach the critic's parameters, but not the samples."""
        total = round.real.new_zeros(())
        with torch.enable_grad():
            for (name, weight), (x, cond) in zip(self.weights.items(), round.judged):
                if weight:
                    x, critic = x.detach(), share_draws(round.critic)
                    changed = change_pair(self.augment, x, cond, round.rng.at(name), maps=round.maps)
                    gap = widen(critic(x, cond)) - widen(critic(*changed))
                    total = total + weight * gap.square().mean()
        return total
