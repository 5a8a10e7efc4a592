"""What judges an autoencoder beyond its likelihood and its KL: critics, perceptual distances, penalties.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from modkit.kinds import Bottleneck, Round, Step
from modkit.losses.perceptual import Perceptual
from modkit.models.critic_game import CriticGame
from modkit.models.latent_game import LatentGame
from modkit.models.latent_penalties import LatentPenalties
from modkit.models.penalties import Penalties
from modkit.types import Batch, Value

__all__ = ["Judges"]


@dataclass(frozen=True)
class Judges:
    """The judges of an autoencoder, each None where there is none.

    Args:
        aggregates: Penalties on the latents of a batch.
        latent_game: The game with a critic of latents.
        perceptual: The distance between samples and reconstructions.
        game: The game with a critic of x.
        penalties: Those on the autoencoder and on the critic of x.
    """

    aggregates: LatentPenalties | None
    latent_game: LatentGame | None
    perceptual: Perceptual | None
    game: CriticGame | None
    penalties: Penalties

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Counts the training samples where a penalty needs their number, and trains an extractor that has to be."""
        if self.aggregates:
            self.aggregates.prepare(batches)
        if self.perceptual:
            self.perceptual.prepare(batches)

    def compute_autoencoder_losses(
        self, z: Value, h: Value, bottleneck: Bottleneck, reconstruct: Callable[[], Round], step: Step, num_values: int
    ) -> dict[str, Tensor]:
        """Computes the autoencoder's losses, by the names of their terms.

        Args:
            z: The decoder's input.
            h: The features that it comes from.
            bottleneck: The bottleneck.
            reconstruct: Makes the round of this turn; the mean of some likelihoods is costly.
            step: The step.
            num_values: The number of values of x, by which penalties are divided.
        """
        nats = self.aggregates.compute(z, h, bottleneck, step) if self.aggregates else {}
        if self.latent_game:
            nats |= self.latent_game.compute_encoder_losses(z, bottleneck, step)
        losses = {name: loss.mean() / num_values for name, loss in nats.items()}
        if not (self.perceptual or self.game or self.penalties.parts):
            return losses
        round = reconstruct()
        if self.perceptual and step.wants("perceptual"):
            losses["perceptual"] = self.perceptual(round.fake, round.real).mean()
        if self.game:
            losses |= self.game.compute_autoencoder_losses(round, bottleneck, step)
        penalties = self.penalties.compute("autoencoder", step, round)
        return losses | {name: penalty / num_values for name, penalty in penalties.items()}

    def compute_critic_losses(
        self, player: str, z: Value, bottleneck: Bottleneck, reconstruct: Callable[[], Round], step: Step
    ) -> dict[str, Tensor]:
        """Computes the losses of the player `critic` or `latent-critic`; no gradients reach the autoencoder.

        Raises:
            ValueError: If there is no such critic.
        """
        if player == "latent-critic" and self.latent_game:
            return self.latent_game.compute_critic_losses(z, bottleneck, step)
        if player == "critic" and self.game:
            return self.game.compute_critic_losses(reconstruct(), bottleneck, step)
        raise ValueError(f"Autoencoder has no {player}, got the player `{player}`")
