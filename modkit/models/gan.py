r"""GAN: a generator against a discriminator, or several.

    z ~ N(0, I),   x = G(z)

Each network belongs to a player, which minimises its own side of an adversarial loss. With two discriminators and the
losses `kl` and `reverse-kl` it is D2GAN. With `classify`, a discriminator also tells a sample's class, and both sides
minimise the cross-entropy of what it tells (AC-GAN):

    discriminator  adversarial - E log P(C = c | x) - E log P(C = c | G(z, c))
    generator      adversarial - E log P(C = c | G(z, c))

References:
    Generative Adversarial Nets (Goodfellow et al., 2014), https://arxiv.org/abs/1406.2661
    Dual Discriminator Generative Adversarial Nets (Nguyen et al., 2017), eq. 1, https://arxiv.org/abs/1709.03831
    Conditional Image Synthesis with Auxiliary Classifier GANs (Odena et al., 2017), eq. 2 and 3,
    https://arxiv.org/abs/1610.09585

Shape letters: b batch, d noise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from modkit import kinds
from modkit.kinds import Round, Slot, Step, Weight, default
from modkit.losses.review import review_critic
from modkit.models.given import call_generator, decode_noise, list_sources, make_styles
from modkit.models.model import Model, make_weights
from modkit.models.penalties import Penalties
from modkit.models.player import Player
from modkit.models.rival import Rival, repeat_conditioner
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
        augment: Changes the samples that the discriminators judge, real and generated ones; nothing by default. One
            whose strength follows the game follows the first discriminator's.
        classify: Name of a field of classes that the discriminators tell from a sample (AC-GAN). The conditioner must
            read it, and the discriminators are not given what it computes.
        conditioner: Computes the generator's conditions from fields. Each discriminator trains one of its own.
        z_dim: Width of the noise.
        weights: Weights of the losses by term (`adversarial` and `class` or, with several discriminators,
            `adversarial/NAME` and `class/NAME`; `r1`, …); the default weight is 1. Those of `adversarial` are the
            generator's; what a discriminator minimises of its game has weight 1.

    Raises:
        ValueError: If a discriminator is named `generator`, `adversarials` has a name that is not a discriminator's, or
            `classify` does not name a field of classes that the conditioner reads, or stands beside conditions from an
            enclosing Model.

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
        augment: Slot[kinds.Augmentation] | None = None,
        classify: str | None = None,
        conditioner: Slot[kinds.Conditioner] = default("none"),
        z_dim: int = 64,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.z = self.start_noise = TensorType((z_dim,), std=1.0)
        self.conditioner = conditioner(fields=fields or {})
        self.reads = self.conditioner.reads
        if classify and cond:
            raise ValueError(f"GAN expects no conditions of an enclosing Model where it classifies, got {cond}")
        cond = cond.merge(self.conditioner.type)
        self.generator = generator(z=self.z, x=x, cond=cond)
        self.sources = list_sources(self.generator, self.z)
        self.classify = classify
        types: dict[str, Any] = {"x": x, "cond": cond}
        if classify:  # what calls carry beyond this type, a discriminator ignores
            types = {"x": x, "cond": CondType(), "heads": {classify: self._count_classes(classify, fields or {})}}
        several = {name: make(**types) for name, make in (discriminators or {}).items()}
        self.discriminators = nn.ModuleDict(several)  # type: ignore[arg-type]
        self.discriminator = None if discriminators else discriminator(**types)
        self.augment = augment(x=x) if augment else None
        own = {name: make() for name, make in (adversarials or {}).items()}
        if "generator" in self.discriminators or own.keys() - self.discriminators.keys():
            received = f"the discriminators {list(self.discriminators)} and losses of {list(own)}"
            raise ValueError(
                f"GAN expects losses by the discriminators' names, none of them `generator`, got {received}"
            )
        games = [own.get(name) or adversarial() for name in self.critics]
        offers = ("fake", "z", "generator")
        judged = (*offers, "critic")
        sides = {"discriminator": judged, "generator": judged if self.discriminator else offers}
        self.penalties = Penalties(self, regularizers, sides)
        paths = {} if classify else {name: f"critic_conditioners.{name}" for name in self.critics}
        second = {name: repeat_conditioner(self, conditioner, fields, path) for name, path in paths.items()}
        self.critic_conditioners = nn.ModuleDict({name: one for name, one in second.items() if one})  # type: ignore[misc]
        self.rivals: dict[str, Rival] = {}
        for (name, critic), game in zip(self.critics.items(), games):
            parts = game, self.penalties, self.augment, second.get(name)
            end = "" if self.discriminator else f"/{name}"
            names = f"adversarial{end}", f"class{end}"
            self.rivals[name] = Rival(critic, *parts, leads=not self.rivals, classify=classify, names=names)
        self._weights = make_weights(weights)

    def players(self) -> tuple[Player, ...]:
        """`discriminator`, or the names of several discriminators, then `generator`."""
        path = "" if self.discriminator else "discriminators."
        states = self.penalties.list_modules("discriminator")
        owned = {name: (path + name, *states) for name in self.critics}
        owned[next(iter(owned))] += self.list_modules("augment")
        for name in self.critic_conditioners:
            owned[name] += (f"critic_conditioners.{name}",)
        rivals = tuple(map(Player, owned, owned.values()))
        own = (*self.list_modules("generator", "conditioner"), *self.penalties.list_modules("generator"))
        return (*rivals, Player("generator", own, against=tuple(self.critics)))

    @property
    def critics(self) -> Mapping[str, kinds.Discriminator]:
        """The discriminators, by the names of their players."""
        return {"discriminator": self.discriminator} if self.discriminator else dict(self.discriminators.items())

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `adversarial` of each side, `class` if there is one to classify, and its regularizers.

        With several discriminators, the generator has a loss `adversarial/NAME` against each, and `class/NAME` of each.
        It trains the conditioner through what the generator is given; a discriminator trains its own.
        """
        x = batch.tensor
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        if player == "generator":
            return self._compute_generator_losses(batch, cond, step)
        z = self._draw_noise(len(x), step.rng)
        with torch.no_grad():
            fake = call_generator(self.generator, z, cond, step.rng)
        rival = self.rivals[player]
        critic, given = rival.show(step.rng.at("augment", player)), rival.compute_cond(batch, cond)
        return rival.compute_losses(Round(x, given, step.rng, fake, z, critic, self.generator), step, batch.fields)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner of the generator, or a discriminator's own."""
        super().prepare(player, batches, rng)
        if player in self.rivals:
            self.rivals[player].prepare(batches)

    def update(self, player: str, step: Step) -> None:
        """Updates the strength of the augmentation, and the penalties that keep statistics."""
        if player == "generator":
            self.penalties.update(player, step)
        else:
            self.rivals[player].update(step)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Generates samples from noise; the conditioner draws missing fields."""
        cond = self.conditioner(self.complete(num, fields, rng), None).merge(cond)
        return call_generator(self.generator, self._draw_noise(num, rng), cond, rng)

    def draw_source(self, num: int, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Draws `z`, or maps it to the generator's styles `w` under the fields, of which missing ones are drawn."""
        if name == "z":
            return super().draw_source(num, name, rng)
        self._find_source(name)
        cond = self.conditioner(self.complete(num, fields, rng), None)
        return make_styles(self.generator, self.draw_source(num, "z", rng), cond)

    def decode_source(self, source: Tensor, name: str, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Generates samples from `z` or `w`; fields that are not given are drawn, the same in each call.

        What is drawn as `w` holds its fields, and those that are given here change nothing.
        """
        self._find_source(name)
        cond = self.conditioner(self.complete(len(source), fields, Rng("source")), None)
        return decode_noise(self.generator, source, cond, name)

    def review(self) -> Iterator[kinds.Note]:
        """What the discriminators are made of."""
        path = "" if self.discriminator else "discriminators."
        for name, critic in self.critics.items():
            yield from review_critic(path + name, critic, self.penalties.parts)

    def _compute_generator_losses(self, batch: Batch, cond: Cond, step: Step) -> dict[str, Tensor]:
        wanted = any(rival.is_wanted(step) for rival in self.rivals.values())
        if not wanted and not self.penalties.is_due("generator", step):
            return {}
        x, z = batch.tensor, self._draw_noise(len(batch.tensor), step.rng)
        fake = call_generator(self.generator, z, cond, step.rng)
        played = Round(x, cond, step.rng, fake, z, generator=self.generator)
        losses: dict[str, Tensor] = {}
        for name, rival in self.rivals.items():
            given = rival.compute_cond(batch, cond)
            played = replace(played, critic=rival.show(step.rng.at("augment", name)), beside=(given, given))
            losses |= rival.compute_generator_losses(played, step, batch.fields)
        return losses | self.penalties.compute("generator", step, played)

    def _count_classes(self, name: str, fields: Mapping[str, TensorType]) -> int:
        classes = fields[name].classes if name in fields and not fields[name].shape else None
        if classes is None or name not in self.reads:
            received = f"{name}, with a conditioner that reads {list(self.reads)} of {list(fields)}"
            raise ValueError(f"GAN expects to classify a field of classes that its conditioner reads, got {received}")
        return classes

    def _draw_noise(self, num: int, rng: Rng) -> Tensor:
        return draw_start(rng, "z", self.allocate(num, self.z))
