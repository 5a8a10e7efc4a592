"""A critic that is shown augmented samples, as assemblies and regularizers call it.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from torch import Tensor

from modkit.kinds import Augmentation, Critic, DiscriminatorExtras, read_extras
from modkit.rng import Rng
from modkit.types import Cond, Judgement

__all__ = ["AugmentedCritic"]


class AugmentedCritic:
    """A critic of augmented samples in one turn of a game; each call has draws of its own.

    Args:
        critic: The critic.
        augment: What it is shown.
        rng: Source of the turn's draws.

    Examples:
        >>> import torch
        >>> critic = AugmentedCritic(lambda x, cond: x.sum(1), lambda x, rng: -x, Rng(0))
        >>> critic(torch.ones(2, 3), Cond())
        tensor([-3., -3.])
    """

    def __init__(self, critic: Critic, augment: Augmentation, rng: Rng) -> None:
        self._critic, self._augment, self._rng, self._calls = critic, augment, rng, count()

    def __call__(self, x: Tensor, cond: Cond) -> Tensor:
        """Computes the logits of augmented `x`."""
        return self._critic(self._change(x), cond)

    @property
    def judge(self) -> Callable[[Tensor, Cond], Judgement] | None:
        """The critic's judgement of augmented samples, if it has one."""
        judge = read_extras(self._critic, DiscriminatorExtras).judge
        return judge and (lambda x, cond: judge(self._change(x), cond))

    def _change(self, x: Tensor) -> Tensor:
        return self._augment(x, self._rng.at(next(self._calls)))
