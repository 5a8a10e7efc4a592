"""Judges: losses of what a Model makes, beside its own.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from modkit.kinds.review import Note
from modkit.types import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from modkit.kinds.adversaries import Round
    from modkit.kinds.training import Step

__all__ = ["Judge", "JudgeExtras"]


class Judge(Protocol):
    """Judges what a Model makes in a turn, such as reconstructions and their latents.

    It is given the `name` under which it stands in the slot, which is the name of its term, and of its player if it
    plays; further terms are called `NAME/…`.
    """

    def losses(self, round: Round, step: Step) -> Mapping[str, Tensor]:
        """Computes the losses of what is judged, as far as `step.wants` them: unweighted scalars, by term."""
        ...


@dataclass(frozen=True)
class JudgeExtras:
    """Optional members of a `Judge`.

    Args:
        needs: Names of the members of `Round` that it uses besides those of every round, `real`, `cond`, `rng` and
            `step`. A Model that does not offer one of them refuses the judge.
        latent: Whether its losses are in nats per sample, as a KL, which an autoencoder divides by the number of values
            of x, as it does its own.
        play: `play(round, step)` computes the losses of its own side, by term: it is then a player, which trains the
            judge's parameters. What is judged has no gradients. The parameters of any other judge are trained with the
            Model.
        replaces: `replaces(round)` compares samples with what was made of them, in nats per sample by term, in place of
            the likelihood's `nll`.
        start: First step of the stage at which it plays. Its terms are not computed before.
        update: `update(step)` is called once after each turn of its player or, of a judge that does not play, of the
            Model. What it keeps belongs in buffers.
        prepare: `prepare(batches)` prepares it before that player's first turn; each iteration over `batches` is a new
            pass over the training data.
        review: `review(path)` states notes on it, see `modkit.models.Model.review`; `path` is its own.
    """

    needs: tuple[str, ...] = ("fake",)
    latent: bool = False
    play: Callable[[Round, Step], Mapping[str, Tensor]] | None = None
    replaces: Callable[[Round], Mapping[str, Tensor]] | None = None
    start: int = 0
    update: Callable[[Step], None] | None = None
    prepare: Callable[[Iterable[Batch]], None] | None = None
    review: Callable[[str], Iterable[Note]] | None = None
