"""What critics are shown: augmented samples, if a game has an augmentation.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from itertools import count

from torch import Tensor

from modkit.kinds import Augmentation, Critic, DiscriminatorExtras, read_extras
from modkit.rng import Rng
from modkit.types import Cond, Judgement

__all__ = ["AugmentedCritic", "change_pair", "share_draws"]


def change_pair(augment: Augmentation, x: Tensor, cond: Cond, rng: Rng, *, maps: bool = True) -> tuple[Tensor, Cond]:
    """Augments samples `x` and, by the same draws, a map of their shape that they are judged beside (`concat`).

    A map of another shape, or of codes, stays as it is: beside one that has to lie over x, take an augmentation that
    leaves values where they are. Without `maps`, what lies beside x is no map of it, and stays as well.

    Examples:
        >>> import torch
        >>> x, cond = change_pair(lambda x, rng: -x, torch.ones(1, 2), Cond(concat=torch.zeros(1, 2) + 3), Rng(0))
        >>> x.tolist(), cond.concat.tolist()
        ([[-1.0, -1.0]], [[-3.0, -3.0]])
    """
    beside = cond.concat
    if maps and beside is not None and beside.is_floating_point() and beside.shape == x.shape:
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
        return change_pair(self._augment, x, cond, next(self._sources), maps=self._maps)
