r"""Autoencoder: an encoder, a bottleneck and a decoder with a likelihood, and optionally a critic.

    h = encoder(x),   z ~ q(z | h),   -log p(x | z) + KL(q(z | x) || p(z)) + the bottleneck's own losses

With the bottleneck `identity` it is an autoencoder, with `gaussian` a VAE (Kingma & Welling, 2014, eq. 3), with `vq` a
VQ-VAE (van den Oord et al., 2017). A weight on `kl` makes the VAE a β-VAE (Higgins et al., 2017). With a critic and
`features` it is the first stage of VQGAN and of latent diffusion.

With a conditioner, the encoder and the decoder are given the conditions c: q(z | x, c) and p(x | z, c), a conditional
VAE (Sohn et al., 2015). With `input`, the encoder reads a field in x's place, such as a noisy copy, while the losses
compare with x: a denoising autoencoder (Vincent et al., 2008). The bound holds for any q, and so for q(z | field).

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any

import torch
from torch import Tensor

from modkit import kinds
from modkit.kinds import Round, Slot, Step, Weight, default
from modkit.losses.perceptual import Perceptual
from modkit.losses.rates import check_exact, compute_rate
from modkit.losses.review import review_coders, review_critic
from modkit.models.bottleneck_model import BottleneckModel
from modkit.models.code_review import review_codes
from modkit.models.critic_game import CriticGame, Game, check_critic
from modkit.models.given import call_given, check_conditional, find_input, read_input
from modkit.models.importance import Gradient, ImportanceWeights
from modkit.models.judges import Judges
from modkit.models.latent_game import Against, LatentGame
from modkit.models.latent_penalties import LatentPenalties
from modkit.models.model import Density, check_draws, make_weights
from modkit.models.observation import Observation
from modkit.models.passes import select_fields
from modkit.models.penalties import Penalties
from modkit.models.player import Player
from modkit.models.posterior import get_last
from modkit.models.rival import Rival, repeat_conditioner
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Latents, PositiveInt, TensorType, Value, checked

__all__ = ["Autoencoder"]

_CRITIC, _LATENT_CRITIC = kinds.Beside("critic"), kinds.Beside("latent_critic")


@checked
class Autoencoder(BottleneckModel):
    """An encoder, a bottleneck and a decoder, and optionally a critic, which adds adversarial losses.

    Conditions reach the encoder, the decoder and the critic; one of the first two may leave them out.

    `nll` and `kl` are in nats per value of x: averaged over the batch and divided by the number of values of a sample.
    So are penalties on latents, with the weights of the papers whatever the number of values: β-TCVAE with β = 6 has
    `aggregates: {tc: total-correlation}` and `weights: {tc: 5}`, FactorVAE with γ = 35 `adversarial/latent-critic: 35`.
    `perceptual` is the distance between a sample and its reconstruction in the maps of `features`
    (`losses.perceptual`), averaged over the batch. The extractor is not part of the network: its weights are saved only
    if they were trained here. A run whose extractor was read from a file can therefore be loaded without the file by
    `modkit.load(run, ["model.features=null"])`.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        encoder: Maps data to features.
        bottleneck: Maps features to latents.
        decoder: Maps latents to the likelihood's parameters.
        likelihood: The distribution p(x | z).
        rate: Makes the loss `kl` of the KL of each group of latent variables; by default, it is their sum.
        draws: Number K of draws of the latent for each sample. With more than one, the loss is `bound`, the negative
            importance-weighted bound (IWAE), in place of `nll` and `kl`, and the decoder computes K rows for each
            sample, with K times the memory; all other losses see the first draw.
        gradient: Which gradient of the importance-weighted bound the encoder receives: `reparametrized`, or
            `doubly-reparametrized` (DReG), whose variance is smaller; no other loss may stand beside it. With the
            latter and one draw, the loss is the ELBO by this draw (sticking the landing).
        critic: Tells data from reconstructions (VQGAN); no critic by default.
        adversarial: Losses of the two sides of the game with the critic.
        regularizers: Penalties on the critic or on the autoencoder, by the names of their terms. Those on the
            autoencoder are divided by the number of values of x, as `nll` is.
        augment: Changes the samples that the critic judges, real and reconstructed ones; nothing by default.
        critic_game: What is judged, and whom it trains. In `vqgan`, the critic judges reconstructions. In `vae-gan`, it
            also judges samples from the prior, which trains only the decoder, and the distance `features` of a sample
            and its reconstruction in the critic's deepest features is minimised in place of `nll`.
        critic_start: First step of the stage at which the critic plays; neither side has the loss `adversarial` before.
        features: Extractor of the maps that the perceptual loss compares; no perceptual loss by default.
        conditioner: Computes conditions from fields; it is trained with the autoencoder. The critic trains one of its
            own.
        input: Name of a field that the encoder reads in x's place; x itself by default.
        aggregates: Penalties on the latents of a batch as a whole (WAE, β-TCVAE, DIP-VAE), by the names of their terms.
        latent_critic: Tells latents from draws of the bottleneck's prior (AAE) or from shuffled ones (FactorVAE).
        latent_adversarial: Losses of the game with the latent critic; where latents are `shuffled`, `density-ratio`.
        latent_against: What the latent critic takes for real: draws of the `prior`, or latents `shuffled` by dimension,
            which are independent of each other.
        weights: Weights of the losses by term (`kl`, `perceptual`, `adversarial`, `commitment`, …); the default weight
            is 1. VQGAN's lambda is `adversarial: {use: adaptive, against: [nll, perceptual]}`.

    Raises:
        ValueError: If the data have no field `input`, or there are conditions that neither the encoder nor the decoder
            takes.

    Examples:
        >>> model = Autoencoder(TensorType((1, 8, 8), (-1, 1)), encoder="mlp", decoder="mlp")
        >>> list(model.latents)
        ['continuous']
        >>> model.sample(2, seed=0).shape
        torch.Size([2, 1, 8, 8])

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
        Taming Transformers (Esser et al., 2021), eq. 4 to 7, https://arxiv.org/abs/2012.09841
        Extracting and Composing Robust Features with Denoising Autoencoders (Vincent et al., 2008), section 2.3,
        https://www.cs.toronto.edu/~larocheh/publications/icml-2008-denoising-autoencoders.pdf
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn et al., 2015), eq. 4,
        https://papers.nips.cc/paper/5775
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        encoder: Slot[kinds.Encoder] = default("conv"),
        bottleneck: Slot[kinds.Bottleneck] = default("gaussian"),
        decoder: Slot[kinds.Decoder] = default("conv"),
        likelihood: Slot[kinds.Likelihood] = default("mse"),
        rate: Slot[kinds.Rate] = default("sum"),
        draws: PositiveInt = 1,
        gradient: Gradient = "reparametrized",
        critic: Slot[kinds.Discriminator] | None = None,
        adversarial: Annotated[Slot[kinds.Adversarial], _CRITIC] = default("hinge"),
        regularizers: dict[str, Slot[kinds.Regularizer]] | None = None,
        augment: Slot[kinds.Augmentation] | None = None,
        critic_game: Annotated[Game, _CRITIC] = "vqgan",
        critic_start: Annotated[int, _CRITIC] = 0,
        features: Slot[kinds.FeatureExtractor] | None = None,
        conditioner: Slot[kinds.Conditioner] = default("none"),
        input: str | None = None,
        aggregates: dict[str, Slot[kinds.Aggregate]] | None = None,
        latent_critic: Slot[kinds.Discriminator] | None = None,
        latent_adversarial: Annotated[Slot[kinds.Adversarial], _LATENT_CRITIC] = default("non-saturating"),
        latent_against: Annotated[Against, _LATENT_CRITIC] = "prior",
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.conditioner = conditioner(fields=fields or {})
        self.reads = self.conditioner.reads
        cond = cond.merge(self.conditioner.type)
        self.input, self.inputs = input, (input,) if input else ()
        self._build_bottleneck(encoder, bottleneck, find_input(x, fields or {}, input), cond)
        self.sources = {} if self.start_noise is None else {"z": self.start_noise}
        self.likelihood = likelihood(x=x)
        self.rate = rate(z=next(iter(self.latents.values())))
        self.importance: ImportanceWeights | None = None
        if (draws, gradient) != (1, "reparametrized"):
            check_exact(self.rate, "importance weights leave none")
            self.importance = ImportanceWeights(self.bottleneck, bottleneck.where, draws, gradient)
            self.importance.check_alone(critic_game, critic or features or regularizers or aggregates or latent_critic)
        make = decoder.name_source(bottleneck.where)
        self.decoder = make(z=list(self.latents.values())[-1], x=self.likelihood.out(x), cond=cond)
        check_conditional(cond, self.encoder, self.decoder)
        check_critic(critic, critic_game, augment, self.bottleneck, bottleneck)
        self.critic = critic(x=x, cond=cond) if critic else None
        self.adversarial = adversarial() if critic else None
        self.augment = augment(x=x) if augment else None
        offers = ("fake", "z", "decoder") if input else ("fake", "z", "encoder", "decoder")  # of x, not of a field
        sides = {"autoencoder": offers} | ({"discriminator": (*offers, "critic")} if critic else {})
        self.penalties = Penalties(self, regularizers, sides)
        self.game, self.critic_conditioner, self.critic_start = None, None, critic_start
        if self.critic is not None and self.adversarial is not None:
            self.critic_conditioner = repeat_conditioner(self, conditioner, fields)
            parts = self.adversarial, self.penalties, self.augment, self.critic_conditioner
            self.game = CriticGame(Rival(self.critic, *parts), critic_game)
        self.perceptual = Perceptual(features(x=x)) if features else None
        penalties = {name: make() for name, make in (aggregates or {}).items()}
        self.aggregates = LatentPenalties(penalties, self.bottleneck, bottleneck) if penalties else None
        self.latent_game: LatentGame | None = None
        if latent_critic:
            rules = latent_adversarial(), latent_against
            self.latent_game = LatentGame(self.bottleneck, bottleneck, latent_critic, *rules)
        self._weights = make_weights(weights)
        self.condensers = self.list_modules("conditioner", "encoder", "bottleneck")

    def players(self) -> tuple[Player, ...]:
        """`autoencoder`, then `critic` and `latent-critic` if there are any."""
        judges = self.list_modules("critic", "critic_conditioner", "augment")
        judges = (*judges, *self.penalties.list_modules("discriminator"))
        rivals = [Player("critic", judges, start=self.critic_start)] if self.critic else []
        if self.latent_game:
            rivals.append(Player("latent-critic", ("latent_game.critic",)))
        own = self.list_modules("conditioner", "encoder", "bottleneck", "decoder", "likelihood", "aggregates")
        own = (*own, *self.penalties.list_modules("autoencoder"))
        last = self.decoder.last_layer and f"decoder.{self.decoder.last_layer}"
        against = tuple(rival.name for rival in rivals)
        return (Player("autoencoder", own, against=against, last_layer=last), *rivals)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the losses of the autoencoder or of a critic.

        The autoencoder has `nll` (or `features`), `kl`, its aggregates, the bottleneck's losses, `perceptual`,
        `adversarial` and `adversarial/latent-critic`; a critic has `adversarial`. Each has its penalties.
        """
        cond = self._compute_cond(batch.fields, batch.cond)
        if player != "autoencoder":
            return self._compute_critic_losses(player, batch, cond, step)
        h = self._compute_features(batch.tensor, batch.fields, cond)
        if self.importance:
            return self._weigh_losses(self.importance, h, batch, cond, step)
        latents = self.bottleneck(h, step)
        rate = compute_rate(self.rate, latents.kl, self.bottleneck, step)
        return self._compute_losses(h, latents, rate, batch, cond, step)

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """Computes the losses with `entropy`, the latent's negative entropy or its estimate, in place of `kl`."""
        cond = self._compute_cond(batch.fields, batch.cond)
        if player != "autoencoder":
            return self._compute_critic_losses(player, batch, cond, step), None
        check_exact(self.rate, "in joint training, `entropy` and `cross_entropy` stand in its place")
        if self.importance:
            raise ValueError("Autoencoder expects one draw, reparametrized, in joint training, got importance weights")
        h = self._compute_features(batch.tensor, batch.fields, cond)
        latents, entropy = self._q.open(name, h, step)
        return self._compute_losses(h, latents, {"entropy": entropy}, batch, cond, step), latents.values[name]

    def update(self, player: str, step: Step) -> None:
        """Updates the bottleneck's codebooks, the augmentation's strength, and the penalties that keep statistics."""
        if player == "critic" and self.game:
            self.game.rival.update(step)
        self.penalties.update(player, step)
        if player == "autoencoder" and (update := self._q.extras.update):
            update(step)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner, the bottleneck from encoded data, and the feature extractor that needs training.

        Training samples are counted where an aggregate part needs their number.
        """
        if player == "critic" and self.game:
            self.game.rival.prepare(batches)
        if player != "autoencoder":
            return
        self.conditioner.prepare(select_fields(batches))
        self._judges.prepare(batches)
        self._prepare_bottleneck(batches, rng)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Decodes draws from the bottleneck's prior; the conditioner draws missing fields."""
        cond = self._compute_cond(self.complete(num, fields, rng), cond)
        return self._p.decode(self.bottleneck.sample(num, rng.at("bottleneck")), cond)

    def draw_as_latent(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws from the likelihood, given draws from the bottleneck's prior."""
        cond = self._compute_cond(self.complete(num, fields, rng), cond)
        return self._p.draw(self.bottleneck.sample(num, rng.at("bottleneck")), cond, rng)

    def explain_lack(self, density: Density, num: int = 1, name: str | None = None) -> str | None:
        """Returns the reason of a likelihood that is no density of x, or of a bottleneck without one of the latent.

        A KL stands in for the latter in the bound of one draw.
        """
        if density == "log_prob":
            return super().explain_lack(density, num, name)
        if reason := self._p.explain_lack():
            return reason
        lack = self._q.explain_lack(prior=density == "bound", name=name)
        return None if lack and density == "bound" and num == 1 and self._q.has_kl(self.encoder.h) else lack

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The ELBO for one draw, or the importance-weighted bound for several; one draw is in memory at a time.

        Raises:
            ValueError: If the likelihood or a latent of the bottleneck has no density, or x has values that the
                likelihood gives no probability.
        """
        cond = self._compute_cond(batch.fields, batch.cond)
        h = self._compute_features(batch.tensor, batch.fields, cond)
        return self._p.compute_bound(batch.tensor, self._q, h, cond, len(check_draws(self, num)), rng)

    def review(self) -> Iterator[kinds.Note]:
        """What penalized networks are made of, and how much the codes tell of a sample."""
        yield from review_critic("critic", self.critic, self.penalties.parts)
        yield from review_coders({"encoder": self.encoder, "decoder": self.decoder}, self.penalties.parts)
        yield from review_critic("latent_critic", self.latent_game and self.latent_game.critic, {})
        yield from review_codes(self.latents.values())

    @property
    def discrete(self) -> bool:
        """Whether the likelihood gives probabilities."""
        return self._p.extras.levels is not None

    @property
    def differentiable(self) -> bool:
        """Whether the likelihood is a density and draws of the latent are differentiable."""
        return bool(self.entropic) and self._p.extras.constant is not None and not self.discrete

    def weigh(self, x: Tensor, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> tuple[Value, Tensor]:
        """Draws the latent from the bottleneck's posterior, and weighs it."""
        cond = self._compute_cond(fields)
        return self._p.weigh(x, self._q, name, self._compute_features(x, fields, cond), cond, rng)

    def decode(self, latent: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes the latent `name` to the mean of x; there are no latents in between."""
        return self._p.decode(self.bottleneck.to_z(name, latent), self._compute_cond(fields))

    def decode_as_latent(self, latent: Value, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes the latent `name` to a draw of p(x | z)."""
        return self._p.draw(self.bottleneck.to_z(name, latent), self._compute_cond(fields), rng)

    def _compute_cond(self, fields: Mapping[str, Tensor], cond: Cond = Cond()) -> Cond:
        return self.conditioner(fields, None).merge(cond)

    def _compute_critic_cond(self, batch: Batch, cond: Cond) -> Cond:
        return self.game.rival.compute_cond(batch, cond) if self.game else cond

    def _compute_features(self, x: Tensor, fields: Mapping[str, Tensor], cond: Cond) -> Value:
        return call_given(self.encoder, read_input(x, fields, self.input), cond)

    def _encode_batch(self, batch: Batch) -> Value:
        return self._compute_features(batch.tensor, batch.fields, self._compute_cond(batch.fields, batch.cond))

    @property
    def _p(self) -> Observation:
        return Observation(self.decoder, self.likelihood, self.single)

    @property
    def _judges(self) -> Judges:
        return Judges(self.aggregates, self.latent_game, self.perceptual, self.game, self.penalties)

    def _compute_losses(
        self, h: Value, latents: Latents, rate: Mapping[str, Tensor], batch: Batch, cond: Cond, step: Step
    ) -> dict[str, Tensor]:
        """Computes the autoencoder's losses at its latents; `rate` holds their cost in nats per sample, by term."""
        x, z = batch.tensor, get_last(latents.values)
        out = call_given(self.decoder, z, cond)
        if self.game and self.game.compares_features:
            given = self._compute_critic_cond(batch, cond)
            distance = {"features": self.game.measure_distance(self.likelihood.mean(out), x, given)}
        else:
            distance = {"nll": self.likelihood.nll(out, x)}
        losses = {name: loss.mean() / self.single.numel for name, loss in {**distance, **rate}.items()}
        return losses | latents.losses | self._judge(h, z, out, batch, cond, step)

    def _weigh_losses(self, by: ImportanceWeights, h: Value, batch: Batch, cond: Cond, step: Step) -> dict[str, Tensor]:
        """Computes the autoencoder's losses with `bound`, by several draws for each sample."""
        latent, log_ratio = by.draw(self.bottleneck, h, step.rng)
        z = self.bottleneck.to_z(next(iter(self.latents)), latent)
        out = call_given(self.decoder, z, cond.map(by.repeat))
        log_weights = log_ratio - self.likelihood.nll(out, by.repeat(batch.tensor))
        losses = {"bound": -by.compute_bound(latent, log_weights).mean() / self.single.numel}
        return losses | self._judge(h, by.select_first(z), out[:: by.draws], batch, cond, step)

    def _judge(self, h: Value, z: Value, out: Tensor, batch: Batch, cond: Cond, step: Step) -> dict[str, Tensor]:
        """Computes the losses of the latents of a batch and of reconstructions, and the penalties."""
        given = self._compute_critic_cond(batch, cond)
        reconstruct = partial(self._make_round, batch.tensor, cond, z, out, given, step)
        return self._judges.compute_autoencoder_losses(z, h, self.bottleneck, reconstruct, step, self.single.numel)

    def _compute_critic_losses(self, player: str, batch: Batch, cond: Cond, step: Step) -> dict[str, Tensor]:
        """Computes the losses of a critic, at latents and reconstructions without gradients."""
        with torch.no_grad():
            h = self._compute_features(batch.tensor, batch.fields, cond)
            z = get_last(self.bottleneck(h, StepContext(step.rng, step.index)).values)

        given = self._compute_critic_cond(batch, cond)

        @torch.no_grad()
        def reconstruct() -> Round:
            return self._make_round(batch.tensor, cond, z, call_given(self.decoder, z, cond), given, step)

        return self._judges.compute_critic_losses(player, z, self.bottleneck, reconstruct, step)

    def _make_round(self, x: Tensor, cond: Cond, z: Value, out: Tensor, given: Cond, step: Step) -> Round:
        def encode(x: Tensor) -> Value:
            return get_last(self.bottleneck(call_given(self.encoder, x, cond), None).values)

        fake, decode = self.likelihood.mean(out), partial(self._p.decode, cond=cond)
        critic: Any = self.critic  # None where no part needs it
        return Round(x, given, step.rng, fake, z, critic, encoder=encode, decoder=decode)
