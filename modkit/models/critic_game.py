r"""What an autoencoder plays with its critic: which fakes are judged, and whom the adversarial loss trains.

    vqgan    fakes are reconstructions; the loss trains the encoder and the decoder
    vae-gan  fakes are reconstructions and samples decoded from the prior; the loss trains the decoder alone,
             and reconstructions are compared with samples in the critic's features, not value by value

References:
    Taming Transformers (Esser et al., 2021), eq. 4 to 7, https://arxiv.org/abs/2012.09841
    Autoencoding beyond pixels using a learned similarity metric (Larsen et al., 2016), algorithm 1,
    https://arxiv.org/abs/1512.09300
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from modkit.kinds import Adversarial, Discriminator
from modkit.losses.judging import compute_generator_loss
from modkit.types import Cond, Value

__all__ = ["GAMES", "CriticGame", "compute_autoencoder_loss", "compute_critic_loss"]


class CriticGame(Protocol):
    """A game with a critic. `.compares_features` says whether reconstructions are compared in its features."""

    compares_features: bool

    def list_fakes(
        self, fake: Tensor, z: Value, decode: Callable[[Value], Tensor], sample: Callable[[], Value]
    ) -> tuple[Tensor, ...]:
        """Lists what the critic judges, as many as there are real samples each.

        Args:
            fake: The reconstructions.
            z: Their latents.
            decode: Maps latents to samples.
            sample: Draws latents from the prior.
        """
        ...


class Reconstructions:
    """VQGAN's game: reconstructions are judged."""

    compares_features = False

    def list_fakes(
        self, fake: Tensor, z: Value, decode: Callable[[Value], Tensor], sample: Callable[[], Value]
    ) -> tuple[Tensor, ...]:
        """The reconstructions."""
        return (fake,)


class Samples:
    """VAE-GAN's game: reconstructions and samples are judged; gradients do not reach the encoder."""

    compares_features = True

    def list_fakes(
        self, fake: Tensor, z: Value, decode: Callable[[Value], Tensor], sample: Callable[[], Value]
    ) -> tuple[Tensor, ...]:
        """The reconstructions, decoded from latents that pass no gradients, and samples from the prior."""
        if torch.is_grad_enabled():
            fake = decode(tuple(one.detach() for one in z) if isinstance(z, tuple) else z.detach())
        return fake, decode(sample())


GAMES: Mapping[str, CriticGame] = {"vqgan": Reconstructions(), "vae-gan": Samples()}
"""The games, by name."""


def compute_autoencoder_loss(
    adversarial: Adversarial, critic: Discriminator, fakes: Sequence[Tensor], x: Tensor, cond: Cond
) -> Tensor:
    """Computes the adversarial loss of an autoencoder, the mean over its fakes."""
    return torch.stack([compute_generator_loss(adversarial, critic, fake, x, cond) for fake in fakes]).mean()


def compute_critic_loss(
    adversarial: Adversarial, critic: Discriminator, fakes: Sequence[Tensor], x: Tensor, cond: Cond
) -> Tensor:
    """Computes the adversarial loss of a critic, the mean over fakes; each is passed by itself, for batch norm."""
    logits = critic(x, cond)
    return torch.stack([adversarial.discriminator(logits, critic(fake, cond)) for fake in fakes]).mean()
