"""What critics are shown: augmented samples, if a game has an augmentation.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
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

__all__ = ["AugmentedCritic", "Augmenter", "change_pair", "share_draws"]


def change_pair(augment: Augmentation, x: Tensor, cond: Cond, rng: Rng) -> tuple[Tensor, Cond]:
    """Augments samples `x` and, by the same draws, a map of their shape that they are judged beside (`concat`).

    A map of another shape, or of codes, stays as it is: beside one that has to lie over x, take an augmentation that
    leaves values where they are.

    Examples:
        >>> import torch
        >>> x, cond = change_pair(lambda x, rng: -x, torch.ones(1, 2), Cond(concat=torch.zeros(1, 2) + 3), Rng(0))
        >>> x.tolist(), cond.concat.tolist()
        ([[-1.0, -1.0]], [[-3.0, -3.0]])
    """
    beside = cond.concat
    if beside is not None and beside.is_floating_point() and beside.shape == x.shape:
        cond = replace(cond, concat=augment(beside, rng.replay()))
    return augment(x, rng), cond


def share_draws(critic: Critic) -> Critic:
    """Returns a critic that augments the samples of all its calls by the same draws, to be compared with each other.

    One that augments nothing is returned as it is.

    Examples:
        >>> import torch
        >>> shift = lambda x, rng: x + rng.normal("shift", x)
        >>> critic = share_draws(AugmentedCritic(lambda x, cond: x.sum(1), shift, Rng(0)))
        >>> bool(critic(torch.ones(2, 3), Cond()).equal(critic(torch.ones(2, 3), Cond())))
        True
    """
    return critic.share_draws() if isinstance(critic, AugmentedCritic) else critic


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
        losses = read_extras(adversarial, AdversarialExtras)
        self._boundary, self._sign = losses.boundary, losses.sign
        if self._extras.observe and self._boundary is None:
            raise Unfit(
                "augment",
                f"{type(augment).__name__} expects losses under which the sign of a logit tells real from fake, got "
                f"{type(adversarial).__name__}, which leaves a constant of logits open; hold the strength "
                "(`ada: {held: 0.3}`, or a schedule such as `held: {use: warmup, value: 0.3}`), or take `diffaugment`",
            )

    def show(self, critic: Critic, rng: Rng, *, maps: bool = True) -> Critic:
        """Returns a critic as it is played against in one turn, see `AugmentedCritic`."""
        return critic if self._augment is None else AugmentedCritic(critic, self._augment, rng, maps=maps)

    def observe(self, real_logits: Tensor, num: int, step: Step) -> None:
        """Tells an augmentation whose strength follows the game the critic's logits of real samples, in training.

        They are counted from the boundary, and positive where a sample is taken for real.

        Args:
            real_logits: The logits, `b ...` or, of a critic that judges several samples at once, fewer: those that
                follow one another share one.
            num: Number b of samples.
            step: The step.
        """
        if self._extras.observe and step.training and self._boundary is not None:
            each = real_logits.repeat_interleave(-(-num // len(real_logits)), 0)[:num]
            self._extras.observe(self._sign * (each - self._boundary))

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
        maps: Whether what lies beside samples as a map (`concat`) is one, changed as they are if it has their shape.

    Examples:
        >>> import torch
        >>> critic = AugmentedCritic(lambda x, cond: x.sum(1), lambda x, rng: -x, Rng(0))
        >>> critic(torch.ones(2, 3), Cond())
        tensor([-3., -3.])
    """

    def __init__(self, critic: Critic, augment: Augmentation, rng: Rng, *, maps: bool = True) -> None:
        self._critic, self._augment, self._maps = critic, augment, maps
        self._sources = (rng.at(call) for call in count())

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of augmented `x`."""
        return self._critic(*self._change(x, cond))

    @property
    def judge(self) -> Callable[[Tensor, Cond], Judgement] | None:
        """The critic's judgement of augmented samples, if it has one."""
        judge = read_extras(self._critic, DiscriminatorExtras).judge
        return judge and (lambda x, cond: judge(*self._change(x, cond)))

    def share_draws(self) -> AugmentedCritic:
        """Returns the critic with the next call's draws in each of its calls."""
        shared, rng = copy(self), next(self._sources)
        shared._sources = (rng.replay() for _ in count())
        return shared

    def _change(self, x: Tensor, cond: Cond) -> tuple[Tensor, Cond]:
        rng = next(self._sources)
        return change_pair(self._augment, x, cond, rng) if self._maps else (self._augment(x, rng), cond)
