r"""Autoencoder: an encoder, a bottleneck and a decoder with a likelihood, and optionally a critic.

    h = encoder(x),   z ~ q(z | h),   -log p(x | z) + KL(q(z | x) || p(z)) + the bottleneck's own losses

With the bottleneck `identity` it is an autoencoder, with `gaussian` a VAE (Kingma & Welling, 2014, eq. 3), with `vq` a
VQ-VAE (van den Oord et al., 2017). A weight on `kl` makes the VAE a β-VAE (Higgins et al., 2017). With a critic and
`features` it is the first stage of VQGAN and of latent diffusion.

The bound on log p(x) is the ELBO with the exact KL or, for K draws, the importance-weighted bound

    log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)

which increases to log p(x) with K (Burda et al., 2016, eq. 8). Codes are deterministic, and their prior is uniform.

Shape letters: b batch, k draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from modkit import kinds
from modkit.kinds import Slot, Step, Weight, default, read_extras
from modkit.losses.perceptual import Perceptual
from modkit.losses.regularizers import penalize
from modkit.losses.review import review_critic
from modkit.models.latent_scale import make_unit
from modkit.models.model import Model, check_draws, make_weights
from modkit.models.passes import map_batches
from modkit.models.player import Player
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Event, Latents, TensorType, Value, split_levels

__all__ = ["Autoencoder"]

T = TypeVar("T")
_ROUNDING = 1e-3  # of the distance between two levels
_FEW_BITS = 16  # a data set of 65,536 samples has one for each code


class Autoencoder(Model):
    """An encoder, a bottleneck and a decoder, and optionally a critic, which adds adversarial losses.

    `nll` and `kl` are in nats per value of x: averaged over the batch and divided by the number of values of a sample.
    `perceptual` is the distance between a sample and its reconstruction in the maps of `features`
    (`losses.perceptual`), averaged over the batch. The extractor is not part of the network: its weights are saved only
    if they were trained here. A run whose extractor was read from a file can therefore be loaded without the file by
    `modkit.load(run, ["model.features=null"])`.

    Args:
        x: Type of the data.
        encoder: Maps data to features.
        bottleneck: Maps features to latents.
        decoder: Maps latents to the likelihood's parameters.
        likelihood: The distribution p(x | z).
        critic: Tells data from reconstructions (VQGAN); no critic by default.
        adversarial: Losses of the two sides of the game with the critic.
        regularizers: Penalties on the critic, by the names of their terms.
        critic_start: First step of the stage at which the critic plays; neither side has the loss `adversarial` before.
        features: Extractor of the maps that the perceptual loss compares; no perceptual loss by default.
        weights: Weights of the losses by term (`kl`, `perceptual`, `adversarial`, `commitment`, …); the default weight
            is 1. VQGAN's lambda is `adversarial: {use: adaptive, against: [nll, perceptual]}`.

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
    """

    def __init__(
        self,
        x: TensorType,
        *,
        encoder: Slot[kinds.Encoder] = default("conv"),
        bottleneck: Slot[kinds.Bottleneck] = default("gaussian"),
        decoder: Slot[kinds.Decoder] = default("conv"),
        likelihood: Slot[kinds.Likelihood] = default("mse"),
        critic: Slot[kinds.Discriminator] | None = None,
        adversarial: Slot[kinds.Adversarial] = default("hinge"),
        regularizers: dict[str, Slot[kinds.Regularizer]] | None = None,
        critic_start: int = 0,
        features: Slot[kinds.FeatureExtractor] | None = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.encoder = encoder(x=x)
        self.bottleneck = bottleneck.name_source(encoder.where)(h=self.encoder.h)
        latents = self.bottleneck.latents
        self.latents = {name: make_unit(event) for name, event in zip(latents, latents.values())}
        extras = read_extras(self.bottleneck, kinds.BottleneckExtras)
        self.moments, self.start_noise = extras.moments, extras.start_noise
        self.likelihood = likelihood(x=x)
        self.decoder = decoder.name_source(bottleneck.where)(
            z=list(self.latents.values())[-1], x=self.likelihood.out(x)
        )
        self.critic = critic(x=x, cond=CondType()) if critic else None
        self.adversarial = adversarial() if critic else None
        self.regularizers = {name: make() for name, make in (regularizers or {}).items()}
        self.critic_start = critic_start
        self.perceptual = Perceptual(features(x=x)) if features else None
        self._weights = make_weights(weights)
        self.condensers = self.list_modules("encoder", "bottleneck")

    def players(self) -> tuple[Player, ...]:
        """`autoencoder`, then `critic` if there is one."""
        own = Player(
            "autoencoder",
            self.list_modules("encoder", "bottleneck", "decoder", "likelihood"),
            against=("critic",) if self.critic else (),
            last_layer=self.decoder.last_layer and f"decoder.{self.decoder.last_layer}",
        )
        return (own, Player("critic", ("critic",), start=self.critic_start)) if self.critic else (own,)

    def weights(self, player: str) -> Mapping[str, Weight]:
        """The weights of the losses, by term; that of `adversarial` (VQGAN's lambda) is the autoencoder's alone."""
        if player == "critic":
            return {term: weight for term, weight in self._weights.items() if term in self.regularizers}
        return self._weights

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the losses of the autoencoder or of the critic.

        The autoencoder has `nll`, `kl`, the losses of the bottleneck, `perceptual` and `adversarial`; the critic has
        `adversarial` and its regularizers.
        """
        x = batch.tensor
        if player == "critic":
            return self._compute_critic_losses(x, step)
        latents = self.bottleneck(self.encoder(x), step)
        return self._compute_losses(latents, {} if latents.kl is None else {"kl": latents.kl}, x, step)

    @property
    def entropic(self) -> tuple[str, ...]:
        """The bottleneck's first latent, if its entropy is known."""
        known = read_extras(self.bottleneck, kinds.BottleneckExtras).posterior_entropy is not None
        return tuple(self.latents)[:1] if known else ()

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """Computes the losses with `entropy`, the negative entropy of the latent, in place of `kl`."""
        x = batch.tensor
        if player == "critic":
            return self._compute_critic_losses(x, step), None
        h = self.encoder(x)
        latents = self.bottleneck(h, step)
        entropy = self._require_density(read_extras(self.bottleneck, kinds.BottleneckExtras).posterior_entropy)(name, h)
        return self._compute_losses(latents, {"entropy": -entropy}, x, step), latents.values[name]

    def update(self, player: str, step: Step) -> None:
        """Updates the bottleneck's codebooks."""
        update = read_extras(self.bottleneck, kinds.BottleneckExtras).update
        if update and player == "autoencoder":
            update(step)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Initialises the bottleneck from encoded data, and trains the feature extractor if it needs training."""
        if player != "autoencoder":
            return
        if self.perceptual:
            self.perceptual.prepare(batches)
        if prepare := read_extras(self.bottleneck, kinds.BottleneckExtras).prepare:
            prepare(map_batches(batches, lambda batch, first: self.encoder(batch.tensor)), rng)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Decodes draws from the bottleneck's prior."""
        return self._decode_mean(self.bottleneck.sample(num, rng.at("bottleneck")))

    def draw_as_latent(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws from the likelihood, given draws from the bottleneck's prior."""
        return self._decode_draw(self.bottleneck.sample(num, rng.at("bottleneck")), rng)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The ELBO for one draw, or the importance-weighted bound for several; one draw is in memory at a time.

        Raises:
            ValueError: If the likelihood or a latent of the bottleneck has no density, or x has values that the
                likelihood gives no probability.
        """
        x = batch.tensor
        h = self.encoder(x)
        if len(check_draws(self, num)) == 1:
            latents = self.bottleneck(h, StepContext(rng.at(0)))
            if latents.kl is not None:
                return self._log_likelihood(_get_last(latents.values), x) - latents.kl
        name = next(iter(self.latents))
        total = x.new_tensor(-torch.inf)
        for index in range(num):
            latent, log_weight = self._weigh(x, h, name, rng.at(index))
            log_prior = self._require_density(read_extras(self.bottleneck, kinds.BottleneckExtras).log_prior)
            total = torch.logaddexp(total, log_weight + log_prior(name, latent))
        return total - math.log(num)

    def review(self) -> Iterator[kinds.Note]:
        """What the critic is made of, and how much the codes tell of a sample."""
        yield from review_critic("critic", self.critic, self.regularizers)
        for event in self.latents.values():
            if (bits := _count_bits(event)) is not None:
                yield kinds.Fact("bottleneck", f"the codes of a sample have {bits:.0f} bits")
                if bits < _FEW_BITS:
                    yield kinds.Finding(
                        "bottleneck",
                        f"what is kept of a sample is {bits:.0f} bits, so there are {2**bits:,.0f} reconstructions; "
                        f"expected at least {_FEW_BITS} bits, by codes of a map or several codes of a vector",
                        ("bottleneck.tokens=8", "bottleneck=residual-vq"),
                    )

    @property
    def discrete(self) -> bool:
        """Whether the likelihood gives probabilities."""
        return self._measure.levels is not None

    @property
    def differentiable(self) -> bool:
        """Whether the likelihood is a density and draws of the latent are differentiable."""
        return bool(self.entropic) and self._measure.constant is not None and not self.discrete

    def weigh(self, x: Tensor, name: str, rng: Rng) -> tuple[Value, Tensor]:
        """Draws the latent from the bottleneck's posterior, and weighs it."""
        return self._weigh(x, self.encoder(x), name, rng)

    def condense(self, x: Tensor, name: str = "") -> tuple[Tensor, ...]:
        """Computes the parameters of q(z | x), or codes; for a bottleneck that condenses nothing, its features."""
        h, extras = self.encoder(x), read_extras(self.bottleneck, kinds.BottleneckExtras)
        if extras.condense and extras.expand:
            return extras.condense(name, h)
        return h if isinstance(h, tuple) else (h,)

    def encode(self, x: Value, name: str, rng: Rng | None = None) -> Value:
        """Encodes `x` to the latent `name`: a draw of q(z | x) if an rng is given, otherwise the mean."""
        step, extras = StepContext(rng) if rng else None, read_extras(self.bottleneck, kinds.BottleneckExtras)
        if isinstance(x, Tensor):
            return self.bottleneck(self.encoder(x), step).values[name]
        if extras.condense and extras.expand:
            return extras.expand(name, x, rng)
        return self.bottleneck(x if isinstance(self.encoder.h, tuple) else x[0], step).values[name]

    @property
    def diagonal(self) -> tuple[str, ...]:
        """The bottleneck's first latent, if the moments of its posterior are known."""
        known = read_extras(self.bottleneck, kinds.BottleneckExtras).posterior_moments is not None
        return tuple(self.latents)[:1] if known else ()

    def encode_moments(self, x: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Encodes `x` to the moments of the bottleneck's posterior."""
        if name not in self.diagonal:
            return super().encode_moments(x, name)
        moments = read_extras(self.bottleneck, kinds.BottleneckExtras).posterior_moments
        return self._require_density(moments)(name, self.encoder(x))

    def decode(self, latent: Value, name: str, rng: Rng | None = None) -> Tensor:
        """Decodes the latent `name` to the mean of x; there are no latents in between."""
        return self._decode_mean(self.bottleneck.to_z(name, latent))

    def decode_as_latent(self, latent: Value, name: str, rng: Rng) -> Tensor:
        """Decodes the latent `name` to a draw of p(x | z)."""
        return self._decode_draw(self.bottleneck.to_z(name, latent), rng)

    def _decode_mean(self, z: Value) -> Tensor:
        return self.likelihood.mean(self.decoder(z))

    def _decode_draw(self, z: Value, rng: Rng) -> Tensor:
        out = self.decoder(z)
        return self.likelihood.sample(out, rng.at("likelihood")).to(out.dtype)

    def _weigh(self, x: Tensor, h: Value, name: str, rng: Rng) -> tuple[Value, Tensor]:
        posterior = self._require_density(read_extras(self.bottleneck, kinds.BottleneckExtras).posterior)
        latent, log_q = posterior(name, h, rng)
        return latent, self._log_likelihood(self.bottleneck.to_z(name, latent), x) - log_q

    def _log_likelihood(self, z: Value, x: Tensor) -> Tensor:
        name, constant, levels = type(self.likelihood).__name__, self._measure.constant, self._measure.levels
        if constant is None:
            raise ValueError(f"Autoencoder has no bound on log p(x): its likelihood {name} is not a density of x")
        if levels is not None and not _has_levels(x, self.single, levels):
            raise ValueError(
                f"Autoencoder has no bound on log p(x): its likelihood {name} gives the probability of {levels} values "
                f"of x, evenly spaced over its range, got others; expected such data, or a likelihood that is a density"
            )
        return -self.likelihood.nll(self.decoder(z), x) - constant * self.single.numel

    @property
    def _measure(self) -> kinds.LikelihoodExtras:
        return read_extras(self.likelihood, kinds.LikelihoodExtras)

    def _require_density(self, density: Callable[..., T] | None) -> Callable[..., T]:
        if density is None:
            name = type(self.bottleneck).__name__
            raise ValueError(f"Autoencoder has no bound on log p(x): its bottleneck {name} has no densities")
        return density

    def _compute_losses(self, latents: Latents, rate: Mapping[str, Tensor], x: Tensor, step: Step) -> dict[str, Tensor]:
        """Computes the autoencoder's losses at its latents; `rate` holds their cost in nats per sample, by term."""
        out = self.decoder(_get_last(latents.values))
        nats = {"nll": self.likelihood.nll(out, x), **rate}
        losses = {name: loss.mean() / self.single.numel for name, loss in nats.items()} | latents.losses
        fake = self.likelihood.mean(out)
        if self.perceptual and step.wants("perceptual"):
            losses["perceptual"] = self.perceptual(fake, x).mean()
        if self.critic and self.adversarial and step.wants("adversarial"):
            losses["adversarial"] = self.adversarial.generator(self.critic(fake, Cond()))
        return losses

    def _compute_critic_losses(self, x: Tensor, step: Step) -> dict[str, Tensor]:
        if self.critic is None or self.adversarial is None:
            raise ValueError("Autoencoder has no critic, got the player `critic`")
        with torch.no_grad():
            latents = self.bottleneck(self.encoder(x), StepContext(step.rng, step.index))
            fake = self._decode_mean(_get_last(latents.values))
        losses = {"adversarial": self.adversarial.discriminator(self.critic(x, Cond()), self.critic(fake, Cond()))}
        return losses | penalize(self.regularizers, self.critic, x, Cond(), step)


def _count_bits(event: Event) -> float | None:
    """Counts the bits of codes, or returns None for other values."""
    bits = [level.numel * math.log2(level.classes) for level in split_levels(event) if level.classes is not None]
    return sum(bits) if bits else None


def _has_levels(x: Tensor, type: TensorType, levels: int) -> bool:
    """Whether all values of x are among `levels` evenly spaced over the range of its type, within rounding."""
    low, high = type.range or (0.0, 1.0)
    index = (x.double() - low) / (high - low) * (levels - 1)
    nearest = index.round().clamp(0, levels - 1)
    return bool((index - nearest).abs().max() < _ROUNDING)


def _get_last(values: Mapping[str, Value]) -> Value:
    return list(values.values())[-1]
