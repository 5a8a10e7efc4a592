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

from modkit.kinds import Bottleneck, Round, Slot, Step, Unfit
from modkit.losses.judging import measure_features
from modkit.models.prior_review import explain_undrawn
from modkit.models.rival import Rival
from modkit.types import Cond

__all__ = ["CriticGame", "Game", "check_critic"]

Game: TypeAlias = Literal["vqgan", "vae-gan"]


class CriticGame:
    """The game with a critic of x. `.compares_features` says whether the critic's features replace `nll`.

    Args:
        rival: The critic.
        game: What is judged.
    """

    def __init__(self, rival: Rival, game: Game) -> None:
        self.rival, rule = rival, _RULES[game]
        self._list_fakes, self.compares_features = rule.list_fakes, rule.compares_features

    def compute_autoencoder_losses(self, round: Round, bottleneck: Bottleneck, step: Step) -> dict[str, Tensor]:
        """Computes the adversarial loss of the autoencoder; gradients do not reach conditions.

        Args:
            round: What was reconstructed in this turn.
            bottleneck: The bottleneck, from whose prior samples are drawn.
            step: The step.
        """
        if not self.rival.is_wanted(step):
            return {}
        fakes = self._list_fakes(round, bottleneck)
        round = replace(round, critic=self.rival.show(round.rng.at("augment")))
        each = [self.rival.compute_generator_losses(replace(round, fake=fake), step) for fake in fakes]
        return {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}

    def compute_critic_losses(self, round: Round, bottleneck: Bottleneck, step: Step) -> dict[str, Tensor]:
        """Computes the losses of the critic and the penalties that are due, which are given the last fakes."""
        with torch.no_grad():
            *others, fake = self._list_fakes(round, bottleneck)
        critic = self.rival.show(round.rng.at("augment"))
        return self.rival.compute_losses(replace(round, fake=fake, critic=critic), step, others=others)

    def measure_distance(self, fake: Tensor, real: Tensor, cond: Cond) -> Tensor:
        """The distance of reconstructions from samples in the critic's features, in nats per sample, `b`."""
        return measure_features(self.rival.critic, fake, real, cond.map(Tensor.detach))


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
