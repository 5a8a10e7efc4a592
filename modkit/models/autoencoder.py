r"""Autoencoder: an encoder, a bottleneck and a decoder with a likelihood, and optionally a critic.

    h = encoder(x),   z ~ q(z | h),   -log p(x | z) + KL(q(z | x) || p(z)) + the bottleneck's own losses

With the bottleneck `identity` it is an autoencoder, with `gaussian` a VAE (Kingma & Welling, 2014, eq. 3), with `vq` a
VQ-VAE (van den Oord et al., 2017). A weight on `kl` makes the VAE a β-VAE (Higgins et al., 2017). With a critic and
`features` it is the first stage of VQGAN and of latent diffusion.

The bound on log p(x) is the ELBO with the exact KL or, for K draws, the importance-weighted bound

    log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)

which increases to log p(x) with K (Burda et al., 2016, eq. 8). Codes are deterministic, and their prior is uniform.
With `draws` above 1, it is trained on the latter in place of `nll` and `kl` (`models.importance`).

With a conditioner, the encoder and the decoder are given the conditions c: q(z | x, c) and p(x | z, c), a conditional
VAE (Sohn et al., 2015). With `input`, the encoder reads a field in x's place, such as a noisy copy, while the losses
compare with x: a denoising autoencoder (Vincent et al., 2008). The bound holds for any q, and so for q(z | field), too.

Shape letters: b batch, k draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor

from modkit import kinds
from modkit.kinds import Round, Slot, Step, Weight, default, read_extras
from modkit.losses.judging import measure_features
from modkit.losses.perceptual import Perceptual
from modkit.losses.regularizers import (
    collect_states,
    list_states,
    make_regularizers,
    penalize,
    select_due,
    update_states,
)
from modkit.losses.review import review_coders, review_critic
from modkit.models.code_review import review_codes
from modkit.models.critic_game import GAMES, compute_autoencoder_loss, compute_critic_loss
from modkit.models.given import call_given, check_conditional, find_input, read_input
from modkit.models.importance import Gradient, ImportanceWeights
from modkit.models.latent_game import Against, LatentGame
from modkit.models.latent_penalties import LatentPenalties
from modkit.models.latent_scale import make_unit
from modkit.models.log_likelihood import compute_log_likelihood
from modkit.models.model import Model, check_draws, make_weights
from modkit.models.passes import map_batches, select_fields
from modkit.models.player import Player
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Latents, TensorType, Value

__all__ = ["Autoencoder"]

T = TypeVar("T")


class Autoencoder(Model):
    """An encoder, a bottleneck and a decoder, and optionally a critic, which adds adversarial losses.

    Conditions reach the encoder, the decoder and the critic; one of the first two may leave them out.

    `nll` and `kl` are in nats per value of x: averaged over the batch and divided by the number of values of a sample.
    So are penalties on latents, whose weights are those of the papers whatever the number of values: β-TCVAE with β = 6
    has `aggregates: {tc: total-correlation}` and `weights: {tc: 5}`, FactorVAE with γ = 35 `adversarial/latent-critic:
    35`.
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
        critic_game: What is judged, and whom it trains. In `vqgan`, the critic judges reconstructions. In `vae-gan`, it
            judges samples from the prior, too, which trains the decoder alone, and the distance `features` of a sample
            and its reconstruction in the critic's deepest features is minimised in place of `nll`.
        critic_start: First step of the stage at which the critic plays; neither side has the loss `adversarial` before.
        features: Extractor of the maps that the perceptual loss compares; no perceptual loss by default.
        conditioner: Computes conditions from fields; it is trained with the autoencoder.
        input: Name of a field that the encoder reads in x's place; x itself by default.
        aggregates: Penalties on the latents of a batch as a whole (WAE, β-TCVAE, DIP-VAE), by the names of their terms.
        latent_critic: Tells latents from draws of the bottleneck's prior (AAE) or from shuffled ones (FactorVAE).
        latent_adversarial: Losses of the two sides of the game with the latent critic; FactorVAE's are `density-ratio`.
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
        draws: int = 1,
        gradient: Gradient = "reparametrized",
        critic: Slot[kinds.Discriminator] | None = None,
        adversarial: Slot[kinds.Adversarial] = default("hinge"),
        regularizers: dict[str, Slot[kinds.Regularizer]] | None = None,
        critic_game: Literal["vqgan", "vae-gan"] = "vqgan",
        critic_start: int = 0,
        features: Slot[kinds.FeatureExtractor] | None = None,
        conditioner: Slot[kinds.Conditioner] = default("none"),
        input: str | None = None,
        aggregates: dict[str, Slot[kinds.Aggregate]] | None = None,
        latent_critic: Slot[kinds.Discriminator] | None = None,
        latent_adversarial: Slot[kinds.Adversarial] = default("non-saturating"),
        latent_against: Against = "prior",
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.conditioner = conditioner(fields=fields or {})
        self.reads = self.conditioner.reads
        cond = cond.merge(self.conditioner.type)
        self.input, self.inputs = input, (input,) if input else ()
        self.encoder = encoder(x=find_input(x, fields or {}, input), cond=cond)
        self.bottleneck = bottleneck.name_source(encoder.where)(h=self.encoder.h)
        latents = self.bottleneck.latents
        self.latents = {name: make_unit(event) for name, event in zip(latents, latents.values())}
        extras = read_extras(self.bottleneck, kinds.BottleneckExtras)
        self.moments, self.start_noise = extras.moments, extras.start_noise
        self.likelihood = likelihood(x=x)
        self.rate = rate(z=next(iter(self.latents.values())))
        self.importance: ImportanceWeights | None = None
        if (draws, gradient) != (1, "reparametrized"):
            self._require_exact_rate("importance weights leave none")
            self.importance = ImportanceWeights(self.bottleneck, bottleneck.where, draws, gradient)
            if critic_game != "vqgan":
                raise kinds.Unfit("critic_game", f"importance weights expect the game vqgan, got {critic_game}")
            if self.importance.doubly and (critic or features or regularizers or aggregates or latent_critic):
                raise ValueError(
                    "Autoencoder expects no critics, features, regularizers or aggregates with a doubly reparametrized "
                    "gradient, which scales the gradients of all losses that reach a draw, got some"
                )
        self.decoder = decoder.name_source(bottleneck.where)(
            z=list(self.latents.values())[-1], x=self.likelihood.out(x), cond=cond
        )
        check_conditional(cond, self.encoder, self.decoder)
        self.critic = critic(x=x, cond=cond) if critic else None
        self.adversarial = adversarial() if critic else None
        offers = ("fake", "z", "decoder") if input else ("fake", "z", "encoder", "decoder")  # of x, not of a field
        sides = {"autoencoder": offers} | ({"discriminator": (*offers, "critic")} if critic else {})
        self.regularizers = make_regularizers(self, regularizers, sides)
        self.penalties = collect_states(self.regularizers)
        if critic_game != "vqgan" and not critic:
            raise kinds.Unfit("critic_game", f"{critic_game} expects a critic, got none")
        if critic_game not in GAMES:
            raise ValueError(f"Autoencoder expects critic_game of {list(GAMES)}, got {critic_game!r}")
        self.game, self.critic_start = GAMES[critic_game], critic_start
        self.perceptual = Perceptual(features(x=x)) if features else None
        self.aggregates: LatentPenalties | None = None
        if aggregates:
            penalties = {name: make() for name, make in aggregates.items()}
            self.aggregates = LatentPenalties(penalties, self.bottleneck, bottleneck)
        self.latent_game: LatentGame | None = None
        if latent_critic:
            self.latent_game = LatentGame(
                self.bottleneck, bottleneck, latent_critic, latent_adversarial(), latent_against
            )
        self._weights = make_weights(weights)
        self.condensers = self.list_modules("conditioner", "encoder", "bottleneck")

    def players(self) -> tuple[Player, ...]:
        """`autoencoder`, then `critic` and `latent-critic` if there are any."""
        judges = ("critic", *list_states(self.regularizers, "discriminator"))
        rivals = [Player("critic", judges, start=self.critic_start)] if self.critic else []
        if self.latent_game:
            rivals.append(Player("latent-critic", ("latent_game.critic",)))
        own = Player(
            "autoencoder",
            (
                *self.list_modules("conditioner", "encoder", "bottleneck", "decoder", "likelihood", "aggregates"),
                *list_states(self.regularizers, "autoencoder"),
            ),
            against=tuple(rival.name for rival in rivals),
            last_layer=self.decoder.last_layer and f"decoder.{self.decoder.last_layer}",
        )
        return (own, *rivals)

    def weights(self, player: str) -> Mapping[str, Weight]:
        """The weights of the losses, by term; that of `adversarial` (VQGAN's lambda) is the autoencoder's alone."""
        if player == "autoencoder":
            return self._weights
        own = self.regularizers if player == "critic" else {}
        return {term: weight for term, weight in self._weights.items() if term in own}

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the losses of the autoencoder or of a critic.

        The autoencoder has `nll` (or `features`), `kl`, its aggregates, the losses of the bottleneck, `perceptual`,
        `adversarial` and `adversarial/latent-critic`; a critic has `adversarial`. The autoencoder and the critic of x
        have regularizers.
        """
        cond = self._compute_cond(batch.fields, batch.cond)
        if player != "autoencoder":
            return self._compute_critic_losses(player, batch, cond, step)
        h = self._compute_features(batch.tensor, batch.fields, cond)
        if self.importance:
            return self._compute_weighted_losses(self.importance, h, batch.tensor, cond, step)
        latents = self.bottleneck(h, step)
        return self._compute_losses(h, latents, self._compute_rate(latents.kl, step), batch.tensor, cond, step)

    @property
    def entropic(self) -> tuple[str, ...]:
        """The bottleneck's first latent, if its entropy is known."""
        known = read_extras(self.bottleneck, kinds.BottleneckExtras).posterior_entropy is not None
        return tuple(self.latents)[:1] if known else ()

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """Computes the losses with `entropy`, the negative entropy of the latent, in place of `kl`."""
        cond = self._compute_cond(batch.fields, batch.cond)
        if player != "autoencoder":
            return self._compute_critic_losses(player, batch, cond, step), None
        self._require_exact_rate("in joint training, `entropy` and `cross_entropy` stand in its place")
        if self.importance:
            raise ValueError("Autoencoder expects one draw, reparametrized, in joint training, got importance weights")
        h = self._compute_features(batch.tensor, batch.fields, cond)
        latents = self.bottleneck(h, step)
        entropy = self._require_density(read_extras(self.bottleneck, kinds.BottleneckExtras).posterior_entropy)(name, h)
        return self._compute_losses(h, latents, {"entropy": -entropy}, batch.tensor, cond, step), latents.values[name]

    def update(self, player: str, step: Step) -> None:
        """Updates the bottleneck's codebooks, and the penalties that keep statistics."""
        update_states(self.regularizers, "discriminator" if player == "critic" else player, step)
        update = read_extras(self.bottleneck, kinds.BottleneckExtras).update
        if update and player == "autoencoder":
            update(step)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner, the bottleneck from encoded data, and the feature extractor that needs training.

        Training samples are counted where an aggregate part needs their number.
        """
        if player != "autoencoder":
            return
        self.conditioner.prepare(select_fields(batches))
        if self.aggregates:
            self.aggregates.prepare(batches)
        if self.perceptual:
            self.perceptual.prepare(batches)
        if prepare := read_extras(self.bottleneck, kinds.BottleneckExtras).prepare:
            prepare(map_batches(batches, lambda batch, first: self._encode_batch(batch)), rng)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Decodes draws from the bottleneck's prior; the conditioner draws missing fields."""
        cond = self._compute_cond(self.complete(num, fields, rng), cond)
        return self._decode_mean(self.bottleneck.sample(num, rng.at("bottleneck")), cond)

    def draw_as_latent(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws from the likelihood, given draws from the bottleneck's prior."""
        cond = self._compute_cond(self.complete(num, fields, rng), cond)
        return self._decode_draw(self.bottleneck.sample(num, rng.at("bottleneck")), cond, rng)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The ELBO for one draw, or the importance-weighted bound for several; one draw is in memory at a time.

        Raises:
            ValueError: If the likelihood or a latent of the bottleneck has no density, or x has values that the
                likelihood gives no probability.
        """
        x, cond = batch.tensor, self._compute_cond(batch.fields, batch.cond)
        h = self._compute_features(x, batch.fields, cond)
        if len(check_draws(self, num)) == 1:
            latents = self.bottleneck(h, StepContext(rng.at(0)))
            if latents.total_kl is not None:
                return self._log_likelihood(_get_last(latents.values), x, cond) - latents.total_kl
        name = next(iter(self.latents))
        total = x.new_tensor(-torch.inf)
        for index in range(num):
            latent, log_weight = self._weigh(x, h, cond, name, rng.at(index))
            log_prior = self._require_density(read_extras(self.bottleneck, kinds.BottleneckExtras).log_prior)
            total = torch.logaddexp(total, log_weight + log_prior(name, latent))
        return total - math.log(num)

    def review(self) -> Iterator[kinds.Note]:
        """What penalized networks are made of, and how much the codes tell of a sample."""
        yield from review_critic("critic", self.critic, self.regularizers)
        yield from review_coders({"encoder": self.encoder, "decoder": self.decoder}, self.regularizers)
        yield from review_critic("latent_critic", self.latent_game and self.latent_game.critic, {})
        yield from review_codes(self.latents.values())

    @property
    def discrete(self) -> bool:
        """Whether the likelihood gives probabilities."""
        return self._measure.levels is not None

    @property
    def differentiable(self) -> bool:
        """Whether the likelihood is a density and draws of the latent are differentiable."""
        return bool(self.entropic) and self._measure.constant is not None and not self.discrete

    def weigh(self, x: Tensor, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> tuple[Value, Tensor]:
        """Draws the latent from the bottleneck's posterior, and weighs it."""
        cond = self._compute_cond(fields)
        return self._weigh(x, self._compute_features(x, fields, cond), cond, name, rng)

    def condense(self, x: Tensor, name: str = "", *, fields: Mapping[str, Tensor] = {}) -> tuple[Tensor, ...]:
        """Computes the parameters of q(z | x), or codes; for a bottleneck that condenses nothing, its features."""
        h, extras = self._encode_batch(Batch(x, fields)), read_extras(self.bottleneck, kinds.BottleneckExtras)
        if extras.condense and extras.expand:
            return extras.condense(name, h)
        return h if isinstance(h, tuple) else (h,)

    def encode(self, x: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Value:
        """Encodes `x` to the latent `name`: a draw of q(z | x) if an rng is given, otherwise the mean."""
        step, extras = StepContext(rng) if rng else None, read_extras(self.bottleneck, kinds.BottleneckExtras)
        if isinstance(x, Tensor):
            return self.bottleneck(self._encode_batch(Batch(x, fields)), step).values[name]
        if extras.condense and extras.expand:
            return extras.expand(name, x, rng)
        return self.bottleneck(x if isinstance(self.encoder.h, tuple) else x[0], step).values[name]

    @property
    def diagonal(self) -> tuple[str, ...]:
        """The bottleneck's first latent, if the moments of its posterior are known."""
        known = read_extras(self.bottleneck, kinds.BottleneckExtras).posterior_moments is not None
        return tuple(self.latents)[:1] if known else ()

    def encode_moments(self, x: Tensor, name: str, *, fields: Mapping[str, Tensor] = {}) -> tuple[Tensor, Tensor]:
        """Encodes `x` to the moments of the bottleneck's posterior."""
        if name not in self.diagonal:
            return super().encode_moments(x, name)
        moments = read_extras(self.bottleneck, kinds.BottleneckExtras).posterior_moments
        return self._require_density(moments)(name, self._encode_batch(Batch(x, fields)))

    def decode(self, latent: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes the latent `name` to the mean of x; there are no latents in between."""
        return self._decode_mean(self.bottleneck.to_z(name, latent), self._compute_cond(fields))

    def decode_as_latent(self, latent: Value, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes the latent `name` to a draw of p(x | z)."""
        return self._decode_draw(self.bottleneck.to_z(name, latent), self._compute_cond(fields), rng)

    def _compute_cond(self, fields: Mapping[str, Tensor], cond: Cond = Cond()) -> Cond:
        return self.conditioner(fields, None).merge(cond)

    def _compute_features(self, x: Tensor, fields: Mapping[str, Tensor], cond: Cond) -> Value:
        return call_given(self.encoder, read_input(x, fields, self.input), cond)

    def _encode_batch(self, batch: Batch) -> Value:
        return self._compute_features(batch.tensor, batch.fields, self._compute_cond(batch.fields, batch.cond))

    def _decode_mean(self, z: Value, cond: Cond) -> Tensor:
        return self.likelihood.mean(call_given(self.decoder, z, cond))

    def _decode_draw(self, z: Value, cond: Cond, rng: Rng) -> Tensor:
        out = call_given(self.decoder, z, cond)
        return self.likelihood.sample(out, rng.at("likelihood")).to(out.dtype)

    def _weigh(self, x: Tensor, h: Value, cond: Cond, name: str, rng: Rng) -> tuple[Value, Tensor]:
        posterior = self._require_density(read_extras(self.bottleneck, kinds.BottleneckExtras).posterior)
        latent, log_q = posterior(name, h, rng)
        return latent, self._log_likelihood(self.bottleneck.to_z(name, latent), x, cond) - log_q

    def _log_likelihood(self, z: Value, x: Tensor, cond: Cond) -> Tensor:
        return compute_log_likelihood(self.likelihood, call_given(self.decoder, z, cond), x, self.single)

    @property
    def _measure(self) -> kinds.LikelihoodExtras:
        return read_extras(self.likelihood, kinds.LikelihoodExtras)

    def _require_density(self, density: Callable[..., T] | None) -> Callable[..., T]:
        if density is None:
            name = type(self.bottleneck).__name__
            raise ValueError(f"Autoencoder has no bound on log p(x): its bottleneck {name} has no densities")
        return density

    def _compute_rate(self, kl: Tensor | None, step: Step) -> dict[str, Tensor]:
        """Computes the KL's loss, if the bottleneck has a KL."""
        if kl is None:
            self._require_exact_rate(f"the bottleneck {type(self.bottleneck).__name__} has none")
            return {}
        return {"kl": self.rate(kl if kl.ndim == 2 else kl[:, None], step)}

    def _require_exact_rate(self, reason: str) -> None:
        if not read_extras(self.rate, kinds.RateExtras).exact:
            raise ValueError(
                f"Autoencoder expects the rate `sum` where no loss is made of a KL by group, got "
                f"{type(self.rate).__name__}: {reason}"
            )

    def _compute_losses(
        self, h: Value, latents: Latents, rate: Mapping[str, Tensor], x: Tensor, cond: Cond, step: Step
    ) -> dict[str, Tensor]:
        """Computes the autoencoder's losses at its latents; `rate` holds their cost in nats per sample, by term."""
        z = _get_last(latents.values)
        out = call_given(self.decoder, z, cond)
        nats = {**self._measure_distance(out, x, cond), **rate}
        losses = {name: loss.mean() / self.single.numel for name, loss in nats.items()} | latents.losses
        return losses | self._compare(h, z, out, x, cond, step)

    def _compute_weighted_losses(
        self, importance: ImportanceWeights, h: Value, x: Tensor, cond: Cond, step: Step
    ) -> dict[str, Tensor]:
        """Computes the autoencoder's losses with `bound`, by several draws for each sample."""
        latent, log_ratio = importance.draw(self.bottleneck, h, step.rng)
        z = self.bottleneck.to_z(next(iter(self.latents)), latent)
        out = call_given(self.decoder, z, cond.map(importance.repeat))
        log_weights = log_ratio - self.likelihood.nll(out, importance.repeat(x))
        losses = {"bound": -importance.compute_bound(latent, log_weights).mean() / self.single.numel}
        return losses | self._compare(h, importance.select_first(z), out[:: importance.draws], x, cond, step)

    def _compare(self, h: Value, z: Value, out: Tensor, x: Tensor, cond: Cond, step: Step) -> dict[str, Tensor]:
        """Computes the losses of the latents of a batch and of reconstructions, and the penalties."""
        nats = self.aggregates.compute(z, h, self.bottleneck, step) if self.aggregates else {}
        if self.latent_game and step.wants("adversarial/latent-critic"):
            nats["adversarial/latent-critic"] = self.latent_game.compute_encoder_loss(z, self.bottleneck, step)
        losses = {name: loss.mean() / self.single.numel for name, loss in nats.items()}
        if not (self.perceptual or self.critic or self.regularizers):
            return losses  # the mean of some likelihoods is costly
        fake = self.likelihood.mean(out)
        if self.perceptual and step.wants("perceptual"):
            losses["perceptual"] = self.perceptual(fake, x).mean()
        if self.critic and self.adversarial and step.wants("adversarial"):
            fakes = self._list_fakes(fake, z, cond, step.rng)
            game = self.adversarial, self.critic
            losses["adversarial"] = compute_autoencoder_loss(*game, fakes, x, cond.map(Tensor.detach))
        penalties = self._penalize("autoencoder", x, cond, fake, z, step)
        return losses | {name: penalty / self.single.numel for name, penalty in penalties.items()}

    def _compute_critic_losses(self, player: str, batch: Batch, cond: Cond, step: Step) -> dict[str, Tensor]:
        x = batch.tensor
        with torch.no_grad():
            h = self._compute_features(x, batch.fields, cond)
            z = _get_last(self.bottleneck(h, StepContext(step.rng, step.index)).values)
        if player == "latent-critic" and self.latent_game:
            return {"adversarial": self.latent_game.compute_critic_loss(z, self.bottleneck, step)}
        if player != "critic" or self.critic is None or self.adversarial is None:
            raise ValueError(f"Autoencoder has no {player}, got the player `{player}`")
        with torch.no_grad():
            fakes = self._list_fakes(self._decode_mean(z, cond), z, cond, step.rng)
        losses = {"adversarial": compute_critic_loss(self.adversarial, self.critic, fakes, x, cond)}
        return losses | self._penalize("discriminator", x, cond, fakes[-1], z, step)

    def _list_fakes(self, fake: Tensor, z: Value, cond: Cond, rng: Rng) -> tuple[Tensor, ...]:
        def draw() -> Value:
            return self.bottleneck.sample(len(fake), rng.at("prior"))

        return self.game.list_fakes(fake, z, partial(self._decode_mean, cond=cond), draw)

    def _measure_distance(self, out: Tensor, x: Tensor, cond: Cond) -> dict[str, Tensor]:
        """Measures how far reconstructions are from x, in nats per sample: by the likelihood or by the critic."""
        if not (self.critic and self.game.compares_features):
            return {"nll": self.likelihood.nll(out, x)}
        return {"features": measure_features(self.critic, self.likelihood.mean(out), x, cond.map(Tensor.detach))}

    def _penalize(self, side: str, x: Tensor, cond: Cond, fake: Tensor, z: Value, step: Step) -> dict[str, Tensor]:
        def encode(x: Tensor) -> Value:
            return _get_last(self.bottleneck(call_given(self.encoder, x, cond), None).values)

        played = Round(
            x,
            cond,
            step.rng,
            fake,
            z,
            self.critic,  # type: ignore[arg-type]  # None where no part needs it
            encoder=encode,
            decoder=partial(self._decode_mean, cond=cond),
        )
        return penalize(select_due(self.regularizers, side, step), played)


def _get_last(values: Mapping[str, Value]) -> Value:
    return list(values.values())[-1]
