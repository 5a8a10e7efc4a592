r"""What an autoencoder plays with its critic: which fakes are judged, and whom the adversarial loss trains.

    vqgan    fakes are reconstructions; the loss trains the encoder and the decoder
    vae-gan  fakes are reconstructions and samples decoded from the prior; the loss trains only the decoder,
             and reconstructions are compared with samples in the critic's features, not value by value

The losses of both sides are means over the fakes.

Shape letters: b batch.

References:
    Taming Transformers (Esser et al., 2021), eq. 4 to 7, https://arxiv.org/abs/2012.09841
    Autoencoding beyond pixels using a learned similarity metric (Larsen et al., 2016), algorithm 1,
    https://arxiv.org/abs/1512.09300
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from modkit.kinds import Adversarial, Augmentation, Bottleneck, Discriminator, Round, Slot, Step, Unfit
from modkit.losses.augmented import Augmenter
from modkit.losses.judging import compute_generator_loss, measure_features
from modkit.models.penalties import Penalties
from modkit.models.prior_review import explain_undrawn
from modkit.types import Cond

__all__ = ["CriticGame", "Game", "check_critic"]

Game: TypeAlias = Literal["vqgan", "vae-gan"]


class CriticGame:
    """A critic of x and the losses of both sides. `.compares_features` says whether its features replace `nll`.

    Args:
        critic: The critic.
        adversarial: The losses.
        game: What is judged.
        penalties: The penalties on the critic among others.
        augment: Changes what the critic is shown, for losses and penalties; features are those of samples as they are.
    """

    def __init__(
        self,
        critic: Discriminator,
        adversarial: Adversarial,
        game: Game,
        penalties: Penalties,
        augment: Augmentation | None = None,
    ) -> None:
        self._critic, self._adversarial, self._penalties = critic, adversarial, penalties
        self._augmenter = Augmenter(augment, adversarial)
        rule = _RULES[game]
        self._list_fakes, self.compares_features = rule.list_fakes, rule.compares_features

    def compute_autoencoder_loss(self, round: Round, bottleneck: Bottleneck) -> Tensor:
        """The adversarial loss of the autoencoder, a scalar; gradients do not reach conditions.

        Args:
            round: What was reconstructed in this turn.
            bottleneck: The bottleneck, from whose prior samples are drawn.
        """
        cond = round.cond.map(Tensor.detach)
        game = self._adversarial, self._augmenter.show(self._critic, round.rng.at("augment"))
        fakes = self._list_fakes(round, bottleneck)
        return torch.stack([compute_generator_loss(*game, fake, round.real, cond) for fake in fakes]).mean()

    def compute_critic_losses(self, round: Round, bottleneck: Bottleneck, step: Step) -> dict[str, Tensor]:
        """The adversarial loss of the critic and the penalties that are due, which are given the last fakes.

        Each kind of fakes is passed by itself, for batch norm.
        """
        with torch.no_grad():
            fakes = self._list_fakes(round, bottleneck)
        critic = self._augmenter.show(self._critic, round.rng.at("augment"))
        logits = critic(round.real, round.cond)
        self._augmenter.observe(logits, len(round.real), step)
        losses = [self._adversarial.discriminator(logits, critic(fake, round.cond)) for fake in fakes]
        penalties = self._penalties.compute("discriminator", step, replace(round, fake=fakes[-1], critic=critic))
        return {"adversarial": torch.stack(losses).mean(), **penalties}

    def update(self, step: Step) -> None:
        """Updates the augmentation's strength and the penalties on the critic after its turn."""
        self._augmenter.update(step)
        self._penalties.update("discriminator", step)

    def measure_distance(self, fake: Tensor, real: Tensor, cond: Cond) -> Tensor:
        """The distance of reconstructions from samples in the critic's features, in nats per sample, `b`."""
        return measure_features(self._critic, fake, real, cond.map(Tensor.detach))


def check_critic(critic: object, game: Game, augment: object, bottleneck: Bottleneck, slot: Slot[Bottleneck]) -> None:
    """Checks that there is a critic where a game or an augmentation needs one, and a prior where it is to judge draws.

    Args:
        critic: The slot of the critic.
        game: What is judged.
        augment: The slot of the augmentation.
        bottleneck: The bottleneck, from whose prior samples are drawn.
        slot: The slot of the bottleneck.

    Raises:
        Unfit: If there is none.
    """
    if game != "vqgan" and not critic:
        raise Unfit("critic_game", f"{game} expects a critic, got none")
    if augment and not critic:
        raise Unfit("augment", "an augmentation expects a critic, which it shows samples to, got none")
    if critic and _RULES[game].draws and explain_undrawn(bottleneck):
        expected = "`vqgan`, which judges reconstructions alone, or a bottleneck with a prior, such as `gaussian`"
        reason = f"{game} judges draws of the bottleneck's prior, and {slot.where} has none"
        raise Unfit("critic_game", f"{reason}; expected {expected}")


class _Rule(NamedTuple):
    list_fakes: Callable[[Round, Bottleneck], tuple[Tensor, ...]]
    compares_features: bool
    draws: bool


def _list_reconstructions(round: Round, bottleneck: Bottleneck) -> tuple[Tensor, ...]:
    return (round.fake,)


def _list_samples(round: Round, bottleneck: Bottleneck) -> tuple[Tensor, ...]:
    """Lists the reconstructions, decoded from latents that pass no gradients, and as many samples from the prior."""
    fake, z = round.fake, round.z
    if torch.is_grad_enabled():
        fake = round.decoder(tuple(one.detach() for one in z) if isinstance(z, tuple) else z.detach())
    return fake, round.decoder(bottleneck.sample(len(fake), round.rng.at("prior")))


_RULES: Mapping[Game, _Rule] = {
    "vqgan": _Rule(_list_reconstructions, compares_features=False, draws=False),
    "vae-gan": _Rule(_list_samples, compares_features=True, draws=True),
}
