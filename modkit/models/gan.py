r"""GAN: a generator against a discriminator.

    z ~ N(0, I),   x = G(z),   two players, each with its own side of an adversarial loss

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661

Shape letters: b batch, d noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from modkit.kinds import (
    Adversarial,
    Conditioner,
    Discriminator,
    Generator,
    Regularizer,
    Slot,
    Step,
    Weight,
    default,
)
from modkit.model import Model, Player, made_weights
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["GAN"]


class GAN(Model):
    """A generator and a discriminator.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        generator: Noise to data.
        discriminator: Real or fake.
        adversarial: Losses of the two sides.
        regularizers: Penalties on the discriminator at real data, by the name of their term.
        conditioner: Fields to conditions of both networks; trained with the generator.
        z_dim: Width of the noise.
        weights: Weights of the losses by term (`adversarial`, `r1`, …); a term not named weighs 1.
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        fields: dict[str, TensorType],
        *,
        generator: Slot[Generator] = default("mlp"),
        discriminator: Slot[Discriminator] = default("mlp"),
        adversarial: Slot[Adversarial] = default("non-saturating"),
        regularizers: dict[str, Slot[Regularizer]] | None = None,
        conditioner: Slot[Conditioner] = default("none"),
        z_dim: int = 64,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.z = TensorType((z_dim,))
        self.conditioner = conditioner(fields=fields)
        self.reads = self.conditioner.reads
        cond = cond.merge(self.conditioner.type)
        self.generator = generator(z=self.z, x=x, cond=cond)
        self.discriminator = discriminator(x=x, cond=cond)
        self.adversarial = adversarial()
        self.regularizers = {name: make() for name, make in (regularizers or {}).items()}
        self._weights = made_weights(weights)

    def players(self) -> tuple[Player, ...]:
        """`discriminator`, then `generator`."""
        return (
            Player("discriminator", self.owned("discriminator")),
            Player("generator", self.owned("generator", "conditioner"), against=("discriminator",)),
        )

    def weights(self, player: str) -> Mapping[str, Weight]:
        """Weights by term."""
        return self._weights

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """`adversarial` of each side, and the discriminator's regularizers."""
        x = batch.tensor
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        if player == "generator":
            return self._generator_losses(len(x), cond, step)
        with torch.no_grad():
            fake = self._generate(len(x), cond, step.rng)
        losses = {
            "adversarial": self.adversarial.discriminator(self.discriminator(x, cond), self.discriminator(fake, cond))
        }
        for name, regularizer in self.regularizers.items():
            if step.wants(name):
                losses[name] = regularizer(self.discriminator.forward, x, cond)
        return losses

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Measures the conditioner's frequencies."""
        if player == "generator":
            self.conditioner.prepare(batches)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Generates from noise; fields not given are drawn by the conditioner."""
        return self._generate(num, self.conditioner(self.complete(num, fields, rng), None).merge(cond), rng)

    def _generator_losses(self, num: int, cond: Cond, step: Step) -> dict[str, Tensor]:
        if not step.wants("adversarial"):
            return {}
        fake = self._generate(num, cond, step.rng)
        return {"adversarial": self.adversarial.generator(self.discriminator(fake, cond))}

    def _generate(self, num: int, cond: Cond, rng: Rng) -> Tensor:
        return self.generator(rng.normal("z", self.blank(num, self.z)), cond)
