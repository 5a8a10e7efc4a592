"""StepContext: the `Step` at which a Model's losses are computed, in training or outside it.

A Model that holds Models passes each one a child of its own step, made by `StepContext.at`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from torch import Tensor

from modkit.kinds import Exchange
from modkit.rng import Rng
from modkit.specs.settings import Term

__all__ = ["StepContext"]

_TERMS_BETWEEN = ("adversarial", "class")  # the game of two players, and what a head of the critic learns to tell


@dataclass(frozen=True)
class StepContext:
    """The step at which losses are computed: its index, its source of draws, and the terms to compute.

    `StepContext(rng)` is a step outside training: nothing is updated, and every term is wanted.

    Args:
        rng: Source of draws.
        index: Number of steps since the start of the stage.
        training: Whether statistics, such as a codebook's sums, are updated.
        terms: When terms are computed, by pattern of their full names; a term that matches no pattern is computed at
            every step.
        waiting: The player's opponents that have yet to start. Terms between the player and these are not computed:
            `adversarial`, `class`, the loss of a head that the opponent trains, and those that have its name.
        scope: Prefix of the nested Model that is given the step, such as `prior/`; empty for the whole model.
        exchange: Speaks to the other processes of the training; None if there are none.
        loss_scale: See `modkit.kinds.Step`.
        previous: Index of the player's turn before this one, -1 if this is its first; by default the step before.
        every: Number of steps from one of the player's turns to the next.

    Examples:
        >>> from modkit import Rng
        >>> step = StepContext(Rng(0))
        >>> step.training, step.wants("r1")
        (False, True)
        >>> step = StepContext(Rng(0), index=3, training=True, terms={"prior/r1": Term(every=16)})
        >>> step.wants("prior/r1"), step.at("prior").wants("r1"), step.wants("r1")
        (False, False, True)

        A lazy term of a player that plays at every third step is computed in its first turn after each multiple.

        >>> lazy = {"r1": Term(every=4)}
        >>> [i for i in range(0, 25, 3) if StepContext(Rng(0), i, terms=lazy, previous=i - 3).wants("r1")]
        [0, 6, 9, 12, 18, 21, 24]
    """

    rng: Rng
    index: int = 0
    training: bool = False
    terms: Mapping[str, Term] = field(default_factory=dict)
    waiting: tuple[str, ...] = ()
    scope: str = ""
    exchange: Exchange | None = None
    loss_scale: float = 1.0
    previous: int | None = None
    every: int = 1

    @property
    def rank(self) -> int:
        """Number of this process."""
        return 0 if self.exchange is None else self.exchange.rank

    @property
    def world(self) -> int:
        """Number of processes of the training."""
        return 1 if self.exchange is None else self.exchange.world

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over the processes of the training."""
        return value if self.exchange is None else self.exchange.total(value)

    def gather(self, value: Tensor) -> Tensor:
        """The rows of all processes of the training."""
        return value if self.exchange is None else self.exchange.gather(value)

    def wants(self, term: str) -> bool:
        """Whether the term is to be computed: it is due in this turn, and its opponent has started."""
        name = f"{self.scope}{term}"
        if any(_is_between(name, player) for player in self.waiting):
            return False
        previous = self.index - 1 if self.previous is None else self.previous
        return all(_count_due(one, self.index) > _count_due(one, previous) for one in self._list_settings(name))

    def find_gain(self, term: str) -> float:
        """Finds the factor of a term's loss: the turns for which it stands if it is to be rescaled, else 1.

        Examples:
            >>> from modkit import Rng
            >>> lazy = {"r1": Term(every=16, rescale=True), "r2": Term(every=16)}
            >>> step = StepContext(Rng(0), terms=lazy, every=2)
            >>> step.find_gain("r1"), step.find_gain("r2"), step.find_gain("adversarial")
            (8.0, 1.0, 1.0)
        """
        settings = self._list_settings(f"{self.scope}{term}")
        if not any(one.rescale for one in settings):
            return 1.0
        return max(math.lcm(*(one.every for one in settings)) / self.every, 1.0)

    def _list_settings(self, name: str) -> list[Term]:
        """Lists what is set for a term of this full name."""
        return [setting for pattern, setting in self.terms.items() if fnmatchcase(name, pattern)]

    def at(self, name: str) -> StepContext:
        """Returns the step of the nested Model `name`, whose draws and terms are under that name."""
        return replace(self, rng=self.rng.at(name), scope=f"{self.scope}{name}/")

    def repeat(self, num: int) -> StepContext:
        """Returns the step of a batch with each row repeated `num` times, so that every row has draws of its own."""
        return replace(self, rng=self.rng.repeat(num))


def _count_due(term: Term, index: int) -> int:
    """Counts the steps at which a term has been due, up to and including a step of the stage."""
    return max(0, (index - term.start) // term.every + 1)


def _is_between(term: str, opponent: str) -> bool:
    """Whether a term is part of the game against an opponent; both are full names."""
    scope, slash, name = opponent.rpartition("/")
    between = {f"{scope}{slash}{one}{end}" for one in _TERMS_BETWEEN for end in ("", f"/{name}")}
    return term in between or f"{term}/".startswith(f"{opponent}/")
