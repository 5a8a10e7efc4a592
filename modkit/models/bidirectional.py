r"""Bidirectional GANs: a generator and an encoder against a judge of pairs (x, z), which is to tell theirs apart.

    real pairs  (x, F(x)),  x from the data        fake pairs  (G(z), z),  z from the prior
    z = [z_c, c, n],   z_c ~ N(0, I),  c one of k categories,  n ~ N(0, I), which is not encoded

`game` says what teaches the encoder:

    ali      D judges pairs; F is trained against D, as G is, in the other direction (ALI, BiGAN)
    veegan   D judges pairs; F learns from the reconstruction only, which also trains G. G minimises the log ratio of
             the two densities of pairs, as D estimates it: the default losses are `density-ratio`
    infogan  D judges x; F learns from the reconstruction only, a bound on the information of [z_c, c] in G(z)

    reconstruction = E |z_c - F(G(z))|^2 / (2 v) - E log q(c | G(z))

The reconstruction is -E log q(z_c, c | G(z)) but for a constant, with the variance v of q(z_c | x).

The posterior of z_c is that of the bottleneck: in `ali` with noise (`gaussian`, ALI) or without (`deterministic`,
BiGAN). In the other games it is the bottleneck's mean, since nothing trains its variance. The optimum of D on pairs is
log p(x) q(z | x) - log p(z) p(x | z), so that at the end of the game F inverts G.

Shape letters: b batch, d encoded values, k categories.

References:
    Adversarially Learned Inference (Dumoulin et al., 2017), eq. 1, https://arxiv.org/abs/1606.00704
    Adversarial Feature Learning (Donahue et al., 2017), eq. 2, https://arxiv.org/abs/1605.09782
    VEEGAN (Srivastava et al., 2017), eq. 4 and algorithm 1, https://arxiv.org/abs/1705.07761
    InfoGAN (Chen et al., 2016), eq. 5 and 6, https://arxiv.org/abs/1606.03657
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modkit import kinds
from modkit.kinds import Implies, Round, Slot, Step, Unfit, Weight, default, read_extras
from modkit.losses.judging import compute_loss_of_logits
from modkit.losses.review import review_critic
from modkit.models.given import call_generator, call_given, decode_noise, list_sources, make_styles
from modkit.models.model import Model, make_weights
from modkit.models.penalties import Penalties
from modkit.models.player import Player
from modkit.models.rival import Rival, repeat_conditioner
from modkit.models.step import StepContext
from modkit.nn.blocks import broadcast
from modkit.precision import widen
from modkit.rng import Rng
from modkit.samplers.sampling import draw_start
from modkit.types import Batch, Cond, CondType, NonNegativeInt, PositiveFloat, TensorType, Value, checked

__all__ = ["Bidirectional"]


class Game(NamedTuple):
    """What D judges, pairs or only x, and what F learns from, reconstruction or D."""

    pairs: bool
    reconstructs: bool


GAMES = {"ali": Game(True, False), "veegan": Game(True, True), "infogan": Game(False, True)}
"""The games, by name."""

GameName: TypeAlias = Annotated[
    Literal["ali", "veegan", "infogan"], Implies({"veegan": {"adversarial": "density-ratio"}})
]


@checked
class Bidirectional(Model):
    """A generator and an encoder against a judge of pairs.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        generator: Maps noise to data.
        encoder: Maps data to features.
        bottleneck: Maps features to z_c: one with a standard normal prior, a vector.
        discriminator: Tells real from fake pairs: it is given z beside x, as a map of constants (`concat`).
        adversarial: Losses of the two sides; in the game `veegan`, the default is `density-ratio`.
        regularizers: Penalties on the discriminator or on the generator, by the names of their terms. Slopes are
            with respect to x, and not to the z of a pair.
        augment: Changes the real and generated x that the discriminator sees, also in its penalties; the encoder reads
            x unchanged.
        conditioner: Computes the conditions from fields; it is trained with the generator. The discriminator trains one
            of its own.
        game: What teaches the encoder: `ali`, `veegan` or `infogan`.
        categories: Number of categories k of c; 0 for none.
        noise: Width of n.
        variance: The variance v of q(z_c | x), by which the reconstruction weighs distances.
        weights: Weights of the losses by term (`adversarial`, the generator's; `reconstruction`, `r1`, …); the default
            weight is 1.

    Raises:
        ValueError: If the game is unknown, the bottleneck's latent is no vector with a normal prior, `variance` is not
            positive, or there are categories in the game `ali`, which cannot be differentiated through their draws.

    Examples:
        >>> model = Bidirectional(TensorType((2,)), encoder="mlp", game="veegan")
        >>> x = model.sample(3, seed=0)
        >>> model.encode(x, "z").shape, model.reconstruct(x).shape
        (torch.Size([3, 4]), torch.Size([3, 2]))
    """

    optimizers = {"*": {"use": "adam", "lr": 2e-4, "betas": [0.5, 0.999]}}

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        generator: Slot[kinds.Generator] = default("mlp"),
        encoder: Slot[kinds.Encoder] = default("mlp"),
        bottleneck: Slot[kinds.Bottleneck] = default("gaussian"),
        discriminator: Slot[kinds.Discriminator] = default("mlp"),
        adversarial: Slot[kinds.Adversarial] = default("non-saturating"),
        regularizers: dict[str, Slot[kinds.Regularizer]] | None = None,
        augment: Slot[kinds.Augmentation] | None = None,
        conditioner: Slot[kinds.Conditioner] = default("none"),
        game: GameName = "ali",
        categories: NonNegativeInt = 0,
        noise: NonNegativeInt = 0,
        variance: PositiveFloat = 1.0,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        if game == "ali" and categories:
            raise ValueError(f"Bidirectional expects categories to be 0 in the game 'ali', got {categories}")
        self.event, self.game, self.categories, self.noise = x, GAMES[game], categories, noise
        self.variance = variance
        self.conditioner = conditioner(fields=fields or {})
        self.reads = self.conditioner.reads
        cond = cond.merge(self.conditioner.type)
        self.encoder = encoder(x=x, cond=cond)
        self.bottleneck: kinds.Bottleneck = bottleneck.name_source(encoder.where)(h=self.encoder.h)
        self.width = _check_prior(self.bottleneck, bottleneck.where)
        h = self.encoder.h
        assert isinstance(h, TensorType), "a vector of a bottleneck comes from a vector"
        self.classify = nn.Linear(h.numel, categories) if categories else None
        code = TensorType((self.width + categories,), std=1.0)
        z = TensorType((code.numel + noise,), std=1.0)
        self.latents = {"z": code}
        self.start_noise = None if categories else z
        self.generator = generator(z=z, x=x, cond=cond)
        self.sources = list_sources(self.generator, z)
        self.discriminator = discriminator(
            x=x, cond=cond.merge(_make_pair_type(x, code) if self.game.pairs else CondType())
        )
        self.augment = augment(x=x) if augment else None
        self.adversarial = adversarial()
        offers = ("fake", "z", "critic")
        sides = {"discriminator": offers, "generator": (*offers, "generator")}
        self.penalties = Penalties(self, regularizers, sides)
        self.critic_conditioner = repeat_conditioner(self, conditioner, fields)
        parts = self.adversarial, self.penalties, self.augment, self.critic_conditioner
        self.rival = Rival(self.discriminator, *parts, maps=not self.game.pairs)
        self._weights = make_weights(weights)

    def players(self) -> tuple[Player, ...]:
        """`discriminator`, then `generator`, which is the encoder as well."""
        own = self.list_modules("generator", "encoder", "bottleneck", "classify", "conditioner")
        judges = self.list_modules("discriminator", "critic_conditioner", "augment")
        judges = (*judges, *self.penalties.list_modules("discriminator"))
        own = (*own, *self.penalties.list_modules("generator"))
        return Player("discriminator", judges), Player("generator", own, against=("discriminator",))

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes `adversarial` of each side, its regularizers and, in games that have it, `reconstruction`.

        In the game `ali`, the generator's `adversarial` has the encoder's added: that of a generator, of real pairs'
        logits with the other sign.
        """
        x, rng = batch.tensor, step.rng
        cond = self.conditioner(batch.fields, None).merge(batch.cond)
        if player == "generator":
            return self._compute_generator_losses(batch, cond, step)
        with torch.no_grad():
            z = self.draw_source(len(x), "z", rng)
            fake = call_generator(self.generator, z, cond, rng)
            code = self._encode(x, cond, rng) if self.game.pairs else None
        beside = self._make_pairs(x, self.rival.compute_cond(batch, cond), code, z)
        critic = self.rival.show(rng.at("augment"))
        maps = not self.game.pairs
        return self.rival.compute_losses(Round(x, beside[0], rng, fake, z, critic, beside=beside, maps=maps), step)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner of a side."""
        super().prepare(player, batches, rng)
        if player == "discriminator":
            self.rival.prepare(batches)

    def update(self, player: str, step: Step) -> None:
        """Updates the strength of the augmentation, and the penalties that keep statistics."""
        if player == "discriminator":
            self.rival.update(step)
        else:
            self.penalties.update(player, step)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Generates samples from noise; the conditioner draws missing fields."""
        cond = self.conditioner(self.complete(num, fields, rng), None).merge(cond)
        if self.start_noise is None:
            return call_generator(self.generator, self.draw_source(num, "z", rng), cond, rng)
        return call_generator(self.generator, draw_start(rng, "z", self.allocate(num, self.start_noise)), cond, rng)

    def draw_source(self, num: int, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Draws z from its prior, normal values and a one-hot category; or maps it to the generator's styles `w`.

        Fields of `w` that are not given are drawn.
        """
        if name != "z":
            self._find_source(name)
            cond = self.conditioner(self.complete(num, fields, rng), None)
            return make_styles(self.generator, self.draw_source(num, "z", rng), cond)
        z = super().draw_source(num, name, rng)
        if self.categories:
            chosen = rng.integers("category", z[:, 0], 0, self.categories)
            z[:, self.width : self.width + self.categories] = F.one_hot(chosen, self.categories).to(z)
        return z

    def decode_source(self, source: Tensor, name: str, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Generates samples from z or w; fields that are not given are drawn, the same in each call."""
        self._find_source(name)
        cond = self.conditioner(self.complete(len(source), fields, Rng("source")), None)
        return decode_noise(self.generator, source, cond, name)

    def encode(self, x: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Value:
        """Encodes `x` to z_c and the probabilities of the categories, or draws both; z_c in `ali` only."""
        return self._encode(Batch(x, {}).tensor, self.conditioner(fields, None), rng)

    def decode(self, latent: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Generates x from z_c and the categories; what is not encoded is 0, or drawn, as is the generator's noise."""
        code, cond = Batch(latent, {}).tensor, self.conditioner(fields, None)
        rest = code.new_zeros(len(code), self.noise)
        if rng is None:
            return self.generator(torch.cat([code, rest], 1), cond)
        return call_generator(self.generator, torch.cat([code, rng.normal("noise", rest)], 1), cond, rng)

    def review(self) -> Iterator[kinds.Note]:
        """What the discriminator is made of."""
        yield from review_critic("discriminator", self.discriminator, self.penalties.parts)

    def _compute_generator_losses(self, batch: Batch, cond: Cond, step: Step) -> dict[str, Tensor]:
        x, rng, mirrors = batch.tensor, step.rng, not self.game.reconstructs
        z = self.draw_source(len(x), "z", rng)
        fake = call_generator(self.generator, z, cond, rng)
        plays, code = self.rival.is_wanted(step), None
        judges_real = self.penalties.is_due("generator", step) or (plays and (mirrors or self.rival.paired))
        if self.game.pairs and judges_real:
            with torch.set_grad_enabled(mirrors and torch.is_grad_enabled()):
                code = self._encode(x, cond.map(Tensor.detach), rng)
        beside = self._make_pairs(x, self.rival.compute_cond(batch, cond).map(Tensor.detach), code, z)
        critic, maps = self.rival.show(rng.at("augment")), not self.game.pairs
        played = Round(x, cond, rng, fake, z, critic, self.generator, beside=beside, maps=maps)
        losses: dict[str, Tensor] = {}
        if plays and mirrors:
            fake_logits, real_logits = (played.critic(*pair) for pair in reversed(played.judged))
            losses["adversarial"] = self._compute_mirrored(fake_logits, real_logits)
        elif plays:
            losses = self.rival.compute_generator_losses(played, step)
        if self.game.reconstructs and step.wants("reconstruction"):
            losses["reconstruction"] = self._measure_reconstruction(fake, z, cond)
        return losses | self.penalties.compute("generator", step, played)

    def _compute_mirrored(self, fake_logits: Tensor, real_logits: Tensor) -> Tensor:
        """The losses of the generator and of the encoder, which has mirrored logits."""
        loss = compute_loss_of_logits(self.adversarial, fake_logits, lambda: real_logits)
        fake, real = (2 * (self.rival.boundary or 0.0) - logits for logits in (real_logits, fake_logits))
        return loss + compute_loss_of_logits(self.adversarial, fake, lambda: real)

    def _measure_reconstruction(self, fake: Tensor, z: Tensor, cond: Cond) -> Tensor:
        """-log q(z_c, c | G(z)) but for a constant, in nats per sample."""
        h = call_given(self.encoder, fake, cond)
        mean = Batch(self.bottleneck(h, None).values[self._last], {}).tensor
        nats = (widen(mean) - widen(z[:, : self.width])).square().sum(1) / (2 * self.variance)
        if self.classify is not None:
            chosen = z[:, self.width : self.width + self.categories].argmax(1)
            nats = nats + F.cross_entropy(widen(self.classify(h)), chosen, reduction="none")
        return nats.mean()

    def _encode(self, x: Tensor, cond: Cond, rng: Rng | None) -> Tensor:
        h = call_given(self.encoder, x, cond)
        rng = None if rng is None else rng.at("encoder")
        step = None
        if rng is not None and not self.game.reconstructs:
            step = StepContext(rng.at("bottleneck"), training=self.training)
        code = [Batch(self.bottleneck(h, step).values[self._last], {}).tensor]
        if self.classify is not None:
            p = self.classify(h).softmax(1)
            if rng is not None:
                u = rng.uniform("category", p[:, :1])
                chosen = torch.searchsorted(p.cumsum(1), u).clamp_max(self.categories - 1)[:, 0]
                p = F.one_hot(chosen, self.categories).to(p)
            code.append(p)
        return torch.cat(code, 1)

    @property
    def _last(self) -> str:
        return list(self.bottleneck.latents)[-1]

    def _make_pairs(self, x: Tensor, cond: Cond, code: Tensor | None, z: Tensor) -> tuple[Cond, Cond]:
        """Makes what the discriminator is given beside x and beside samples from z, whose first part is encoded.

        In games of pairs, a code is a map of constants beside x; the part of x is left out where nothing judges x.
        """
        if not self.game.pairs:
            return cond, cond
        beside_fake = _lay_code(x, cond, z[:, : self.width + self.categories])
        return cond if code is None else _lay_code(x, cond, code), beside_fake


def _lay_code(x: Tensor, cond: Cond, code: Tensor) -> Cond:
    return cond.merge(Cond(concat=broadcast(code, x).expand(*code.shape, *x.shape[2:])))


def _check_prior(bottleneck: kinds.Bottleneck, where: str) -> int:
    """Returns the width of a bottleneck's latent, which must be a vector with a standard normal prior."""
    z = list(bottleneck.latents.values())[-1]
    noise = read_extras(bottleneck, kinds.BottleneckExtras).start_noise
    if isinstance(z, tuple) or noise is None or len(z.shape) != 1 or noise.shape != z.shape:
        raise Unfit(
            "bottleneck",
            "Bidirectional expects a bottleneck whose latent is a vector with a standard normal prior, got "
            f"{where} with {z}; encoders `mlp` and `dcgan` give vectors",
        )
    return z.numel


def _make_pair_type(x: TensorType, code: TensorType) -> CondType:
    return CondType(concat=TensorType((code.numel, *x.shape[1:])))
