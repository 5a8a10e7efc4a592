"""What critics are shown: augmented samples, if a game has an augmentation.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

from torch import Tensor

from modkit.kinds import (
    Adversarial,
    AdversarialExtras,
    Augmentation,
    AugmentationExtras,
    Critic,
    DiscriminatorExtras,
    Step,
    Unfit,
    read_extras,
)
from modkit.rng import Rng
from modkit.types import Cond, Judgement

__all__ = ["AugmentedCritic", "Augmenter"]


class Augmenter:
    """The augmentation of a game, or none: it shows samples to critics, and follows the first critic's logits.

    Args:
        augment: The augmentation.
        adversarial: The losses of the first critic.

    Raises:
        Unfit: If the augmentation follows the signs of logits, which these losses leave open.

    Examples:
        >>> import torch
        >>> from modkit.losses import Hinge
        >>> critic = lambda x, cond: x.sum(1)
        >>> Augmenter(lambda x, rng: -x, Hinge()).show(critic, Rng(0))(torch.ones(2, 3), Cond())
        tensor([-3., -3.])
        >>> Augmenter(None, Hinge()).show(critic, Rng(0)) is critic
        True
    """

    def __init__(self, augment: Augmentation | None, adversarial: Adversarial) -> None:
        self._augment, self._extras = augment, read_extras(augment, AugmentationExtras)
        self._boundary = read_extras(adversarial, AdversarialExtras).boundary
        if self._extras.observe and self._boundary is None:
            raise Unfit(
                "augment",
                f"{type(augment).__name__} expects losses under which the sign of a logit tells real from fake, got "
                f"{type(adversarial).__name__}, which leaves a constant of logits open; take `diffaugment`",
            )

    def show(self, critic: Critic, rng: Rng, *, pairs: bool = False) -> Critic:
        """Returns a critic as it is played against in one turn, see `AugmentedCritic`."""
        return critic if self._augment is None else AugmentedCritic(critic, self._augment, rng, pairs=pairs)

    def observe(self, real_logits: Tensor, step: Step) -> None:
        """Tells an augmentation whose strength follows the game the critic's logits of real samples, in training."""
        if self._extras.observe and step.training and self._boundary is not None:
            self._extras.observe(real_logits - self._boundary)

    def update(self, step: Step) -> None:
        """Updates the strength after a turn of the critic."""
        if self._extras.update:
            self._extras.update(step)


class AugmentedCritic:
    """A critic of augmented samples in one turn of a game; each call has draws of its own.

    Args:
        critic: The critic.
        augment: What it is shown.
        rng: Source of the turn's draws.
        pairs: Whether samples are judged beside maps of their type (`concat`), which are then changed as they are.

    Examples:
        >>> import torch
        >>> critic = AugmentedCritic(lambda x, cond: x.sum(1), lambda x, rng: -x, Rng(0))
        >>> critic(torch.ones(2, 3), Cond())
        tensor([-3., -3.])
    """

    def __init__(self, critic: Critic, augment: Augmentation, rng: Rng, *, pairs: bool = False) -> None:
        self._critic, self._augment, self._rng, self._pairs, self._calls = critic, augment, rng, pairs, count()

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of augmented `x`."""
        return self._critic(*self._change(x, cond))

    @property
    def judge(self) -> Callable[[Tensor, Cond], Judgement] | None:
        """The critic's judgement of augmented samples, if it has one."""
        judge = read_extras(self._critic, DiscriminatorExtras).judge
        return judge and (lambda x, cond: judge(*self._change(x, cond)))

    def _change(self, x: Tensor, cond: Cond) -> tuple[Tensor, Cond]:
        rng = self._rng.at(next(self._calls))
        if self._pairs and cond.concat is not None:
            cond = replace(cond, concat=self._augment(cond.concat, rng.replay()))
        return self._augment(x, rng), cond
