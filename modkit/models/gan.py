r"""GAN: a generator against a discriminator, or several.

    z ~ N(0, I),   x = G(z)

Each network belongs to a player, which minimises its own side of an adversarial loss. With two discriminators and the
losses `kl` and `reverse-kl` it is D2GAN.

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    Dual Discriminator Generative Adversarial Nets (Nguyen et al., 2017), eq. 1, https://arxiv.org/abs/1709.03831

Shape letters: b batch, d noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from modkit import kinds
from modkit.kinds import Round, Slot, Step, Weight, default, read_extras
from modkit.losses.judging import compute_generator_loss
from modkit.losses.regularizers import (
    collect_states,
    list_states,
    make_regularizers,
    penalize,
    select_due,
    update_states,
)
from modkit.losses.review import review_critic
from modkit.models.model import Model, make_weights
from modkit.models.player import Player
from modkit.rng import Rng
from modkit.samplers.sampling import draw_start
from modkit.types import Batch, Cond, CondType, TensorType

__all__ = ["GAN"]


class GAN(Model):
    """A generator and one or more discriminators.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        generator: Maps noise to data.
        discriminator: Tells real data from generated data.
        discriminators: Several discriminators in its place, by the names of their players.
        adversarial: Losses of the two sides.
        adversarials: Losses of single discriminators in place of `adversarial`, by the discriminators' names.
        regularizers: Penalties on each discriminator or on the generator, by the names of their terms.
        conditioner: Computes the conditions of both networks from fields; it is trained with the generator.
        z_dim: Width of the noise.
        weights: Weights of the losses by term (`adversarial` or, with several discriminators, `adversarial/NAME`, `r1`,
            …); the default weight is 1.

    Raises:
        ValueError: If a discriminator is named `generator`, or `adversarials` has a name that is not a discriminator's.

    Examples:
        >>> model = GAN(TensorType((2,)), z_dim=8)
        >>> [player.name for player in model.players()]
        ['discriminator', 'generator']
        >>> model.sample(3, seed=0).shape
        torch.Size([3, 2])
    """

    optimizers = {"*": {"use": "adam", "lr": 2e-4, "betas": [0.5, 0.999]}}  # Radford et al. (2016), section 4

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        generator: Slot[kinds.Generator] = default("mlp"),
        discriminator: Slot[kinds.Discriminator] = default("mlp"),
        discriminators: dict[str, Slot[kinds.Discriminator]] | None = None,
        adversarial: Slot[kinds.Adversarial] = default("non-saturating"),
        adversarials: dict[str, Slot[kinds.Adversarial]] | None = None,
        regularizers: dict[str, Slot[kinds.Regularizer]] | None = None,
        conditioner: Slot[kinds.Conditioner] = default("none"),
        z_dim: int = 64,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.z = self.start_noise = TensorType((z_dim,), std=1.0)
        self.conditioner = conditioner(fields=fields or {})
        self.reads = self.conditioner.reads
        cond = cond.merge(self.conditioner.type)
        self.generator = generator(z=self.z, x=x, cond=cond)
        several = {name: make(x=x, cond=cond) for name, make in (discriminators or {}).items()}
        self.discriminators = nn.ModuleDict(several)  # type: ignore[arg-type]
        self.discriminator = None if discriminators else discriminator(x=x, cond=cond)
        own = {name: make() for name, make in (adversarials or {}).items()}
        if "generator" in self.discriminators or own.keys() - self.discriminators.keys():
            received = f"the discriminators {list(self.discriminators)} and losses of {list(own)}"
            raise ValueError(
                f"GAN expects losses by the discriminators' names, none of them `generator`, got {received}"
            )
        self.adversarials = {name: own.get(name) or adversarial() for name in self.critics}
        self.regularizers = make_regularizers(
            self,
            regularizers,
            {"discriminator": ("fake", "z", "critic", "generator"), "generator": ("fake", "z", "generator")},
        )
        self.penalties = collect_states(self.regularizers)
        self._weights = make_weights(weights)

    def players(self) -> tuple[Player, ...]:
        """`discriminator`, or the names of several discriminators, then `generator`."""
        path = "" if self.discriminator else "discriminators."
        shared = list_states(self.regularizers, "discriminator")
        rivals = tuple(Player(name, (path + name, *shared)) for name in self.critics)
        own = (*self.list_modules("generator", "conditioner"), *list_states(self.regularizers, "generator"))
        return (*rivals, Player("generator", own, against=tuple(self.critics)))

    @property
    def critics(self) -> Mapping[str, kinds.Discriminator]:
        """The discriminators, by the names of their players."""
        return {"discriminator": self.discriminator} if self.discriminator else dict(self.discriminators.items())

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `adversarial` of each side, and its regularizers.

        With several discriminators, the generator has a loss `adversarial/NAME` against each. It trains the conditioner
        through what the generator is given; what its judges are given is detached.
        """
        x = batch.tensor
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        if player == "generator":
            return self._compute_generator_losses(x, cond, step)
        z = self._draw_noise(len(x), step.rng)
        with torch.no_grad():
            fake = self._generate(z, cond, step.rng)
        critic = self.critics[player]
        losses = {"adversarial": self.adversarials[player].discriminator(critic(x, cond), critic(fake, cond))}
        played = Round(x, cond, step.rng, fake, z, critic, self.generator)
        return losses | penalize(select_due(self.regularizers, "discriminator", step), played)

    def update(self, player: str, step: Step) -> None:
        """Updates the penalties that keep statistics."""
        update_states(self.regularizers, "generator" if player == "generator" else "discriminator", step)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Generates samples from noise; the conditioner draws missing fields."""
        cond = self.conditioner(self.complete(num, fields, rng), None).merge(cond)
        return self._generate(self._draw_noise(num, rng), cond, rng)

    def review(self) -> Iterator[kinds.Note]:
        """What the discriminators are made of."""
        path = "" if self.discriminator else "discriminators."
        for name, critic in self.critics.items():
            yield from review_critic(path + name, critic, self.regularizers)

    def _compute_generator_losses(self, x: Tensor, cond: Cond, step: Step) -> dict[str, Tensor]:
        terms = {"adversarial" if self.discriminator else f"adversarial/{name}": name for name in self.critics}
        wanted = {term: name for term, name in terms.items() if step.wants(term)}
        due = select_due(self.regularizers, "generator", step)
        if not wanted and not due:
            return {}
        z, given = self._draw_noise(len(x), step.rng), cond.map(Tensor.detach)
        fake = self._generate(z, cond, step.rng)
        losses = {
            term: compute_generator_loss(self.adversarials[name], self.critics[name], fake, x, given)
            for term, name in wanted.items()
        }
        return losses | penalize(due, Round(x, cond, step.rng, fake, z, generator=self.generator))

    def _generate(self, z: Tensor, cond: Cond, rng: Rng) -> Tensor:
        """Generates from noise; a generator that draws noise of its own is given `rng`."""
        if read_extras(self.generator, kinds.GeneratorExtras).draws:
            return self.generator(z, cond, rng.at("generator"))  # type: ignore[call-arg]
        return self.generator(z, cond)

    def _draw_noise(self, num: int, rng: Rng) -> Tensor:
        return draw_start(rng, "z", self.allocate(num, self.z))
