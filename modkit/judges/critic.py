r"""A critic of what a Model makes: a discriminator with a game of its own.

    critic   adversarial.discriminator(D(T(real)), D(T(fake)))   and its penalties
    maker    adversarial.generator(D(T(fake)))

T is the augmentation, if there is one. `game` says which fakes are judged, and whom the maker's loss trains:

    vqgan    fakes are what is made, reconstructions of an autoencoder; the loss trains all that made them
    vae-gan  fakes are reconstructions and samples decoded from the prior; the loss trains only the decoder, and
             reconstructions are compared with samples in the critic's features in place of `nll`

The losses of both sides are means over the fakes.

Shape letters: b batch.

References:
    Taming Transformers (Esser et al., 2021), eq. 4 to 7, https://arxiv.org/abs/2012.09841
    Autoencoding beyond pixels using a learned similarity metric (Larsen et al., 2016), algorithm 1,
    https://arxiv.org/abs/1512.09300
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from modkit import kinds
from modkit.kinds import RegularizerExtras, Round, Slot, Step, default, read_extras
from modkit.losses.judging import measure_features
from modkit.losses.review import review_critic
from modkit.models.penalties import Penalties
from modkit.models.rival import Rival
from modkit.types import Batch, CondType, NonNegativeInt, TensorType, checked

__all__ = ["CriticJudge", "Game"]

Game: TypeAlias = Literal["vqgan", "vae-gan"]

_OFFERS = ("fake", "z", "critic", "generator", "encoder", "decoder")  # what a Model lacks of these, it says itself


@checked
class CriticJudge(nn.Module):
    """A critic, the losses of both sides, its penalties and its augmentation.

    The maker's term has the critic's name; the critic's own loss is `adversarial`.

    Args:
        name: The name of its player and its term.
        x: Type of the samples.
        cond: The conditions beside them.
        repeat: Makes a conditioner of its own, as the Model's, which the Model keeps; None if there is nothing to
            train.
        network: Tells data from what is made.
        adversarial: Losses of the two sides.
        regularizers: Penalties on the critic, or on the maker by the critic (feature matching), by the names of their
            terms.
        augment: Changes the samples that it judges, real and made ones; nothing by default.
        game: Which fakes are judged, and whom the maker's loss trains.
        start: First step of the stage at which it plays; neither side has a loss of the game before.

    Examples:
        >>> from modkit import Cond, Rng, StepContext
        >>> from modkit.losses import Hinge
        >>> from modkit.nn.mlp import MLPDiscriminator
        >>> critic = CriticJudge("critic", TensorType((3,)), network=MLPDiscriminator, adversarial=Hinge)
        >>> round = Round(torch.zeros(2, 3), Cond(), Rng(0), fake=torch.ones(2, 3))
        >>> list(critic.losses(round, StepContext(Rng(0)))), list(critic.play(round, StepContext(Rng(0))))
        (['critic'], ['adversarial'])
    """

    def __init__(
        self,
        name: str,
        x: TensorType,
        cond: CondType = CondType(),
        repeat: Callable[[], kinds.Conditioner | None] | None = None,
        *,
        network: Slot[kinds.Discriminator] = default("patch"),
        adversarial: Slot[kinds.Adversarial] = default("hinge"),
        regularizers: dict[str, Slot[kinds.Regularizer]] | None = None,
        augment: Slot[kinds.Augmentation] | None = None,
        game: Game = "vqgan",
        start: NonNegativeInt = 0,
    ) -> None:
        super().__init__()
        self.name, self.start, self._draws = name, start, game == "vae-gan"
        self.network = network(x=x, cond=cond)
        self.adversarial = adversarial()
        self.augment = augment(x=x) if augment else None
        self.event = x
        self.penalties = Penalties(self, regularizers, dict.fromkeys(("discriminator", "generator"), _OFFERS))
        parts = self.adversarial, self.penalties, self.augment, repeat() if repeat else None
        self.rival = Rival(self.network, *parts, names=(name, f"{name}/class"))
        needed = {need for one in self.penalties.parts.values() for need in read_extras(one, RegularizerExtras).needs}
        drawn = {"decoder", "prior", "z"} if self._draws else set()
        self.needs = tuple(sorted((needed | drawn | {"fake"}) - {"critic"}))
        self.replaces = self._compare if self._draws else None

    def losses(self, round: Round, step: Step) -> dict[str, Tensor]:
        """Computes the maker's losses; gradients do not reach the conditions that the critic is given."""
        judged = self._show(round)
        losses: dict[str, Tensor] = {}
        if self.rival.is_wanted(step):
            each = [self.rival.compute_generator_losses(replace(judged, fake=one), step) for one in self._list(round)]
            losses = {term: torch.stack([one[term] for one in each]).mean() for term in each[0]}
        return losses | self.penalties.compute("generator", step, judged)

    def play(self, round: Round, step: Step) -> dict[str, Tensor]:
        """Computes the critic's losses, and the penalties that are due, which are given the last fakes."""
        with torch.no_grad():
            *others, fake = self._list(round)
        return self.rival.compute_losses(self._show(replace(round, fake=fake)), step, others=others)

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Prepares the critic's own conditioner."""
        self.rival.prepare(batches)

    def update(self, step: Step) -> None:
        """Updates the augmentation's strength, and the penalties that keep statistics."""
        self.rival.update(step)

    def review(self, path: str) -> Iterator[kinds.Note]:
        """What it is made of."""
        yield from review_critic(f"{path}.network", self.network, self.penalties.parts)

    def _show(self, round: Round) -> Round:
        """The round with the critic and the conditions that it is given."""
        critic = self.rival.show(round.rng.at("augment"))
        return replace(round, critic=critic, cond=self.rival.compute_cond(round.batch, round.cond))

    def _list(self, round: Round) -> tuple[Tensor, ...]:
        """Lists the fakes that are judged; where samples are drawn, no gradients reach the latents."""
        if not self._draws:
            return (round.fake,)
        fake, z = round.fake, round.z
        if torch.is_grad_enabled():
            fake = round.decoder(tuple(one.detach() for one in z) if isinstance(z, tuple) else z.detach())
        return fake, round.decoder(round.prior(round.rng))

    def _compare(self, round: Round) -> Mapping[str, Tensor]:
        """The distance of what is made from samples in the critic's features, in nats per sample, `b`."""
        given = self.rival.compute_cond(round.batch, round.cond).map(Tensor.detach)
        return {"features": measure_features(self.network, round.fake, round.real, given)}
