r"""Autoencoder: an encoder, a bottleneck and a decoder under a likelihood, perhaps with a critic of its pictures.

    h = encoder(x),   z ~ q(z | h),   -log p(x | z) + KL(q(z | x) || p(z)) + the bottleneck's own losses

With `identity` it is an autoencoder, with `gaussian` a VAE (Kingma & Welling, 2014, eq. 3), with a weight on `kl` a
β-VAE
(Higgins et al., 2017), with `vq` a VQ-VAE (van den Oord et al., 2017), with a critic and `features` the first stage of
VQGAN and of latent diffusion.

The bound on log p(x) is the ELBO with its exact KL or, of K draws, the importance-weighted bound

    log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)

which rises to log p(x) with K (Burda et al., 2016, eq. 8). Codes are certain and their prior is uniform.

Shape letters: b batch, k draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from modkit.kinds import (
    Adversarial,
    Bottleneck,
    Decoder,
    Discriminator,
    Encoder,
    FeatureExtractor,
    Likelihood,
    Regularizer,
    Slot,
    Step,
    Weight,
    default,
)
from modkit.losses.perceptual import Perceptual
from modkit.models.model import Model, Pass, Player, draws, made_weights
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Latents, TensorType, Value

__all__ = ["Autoencoder"]


class Autoencoder(Model):
    """An encoder, a bottleneck and a decoder; a critic makes it adversarial.

    `nll` and `kl` are nats a dimension of x: a sample's, averaged over the batch and divided by its number of values.
    `perceptual` is a sample's distance to its reconstruction in the maps of `features` (`losses.perceptual`), averaged
    over the batch. What extracts them is no part of the network: it is saved only where it was trained here, so a run
    with one that is read from a file loads without the file as `modkit.load(run, ["model.features=null"])`.

    Args:
        x: Type of the data.
        encoder: Data to features.
        bottleneck: Features to latents.
        decoder: Latents to the likelihood's parameters.
        likelihood: p(x | z).
        critic: Tells data from reconstructions (VQGAN); none where not given.
        adversarial: Losses of the game with the critic.
        regularizers: Penalties on the critic, by the name of their term.
        critic_start: First step of the stage at which the critic plays; until then neither side has `adversarial`.
        features: Whose maps the perceptual loss compares; none where not given.
        weights: Weights of the losses by term (`kl`, `perceptual`, `adversarial`, `commitment`, …); a term not named
            weighs 1. VQGAN's lambda is `adversarial: {use: adaptive, against: [nll, perceptual]}`.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114
        Importance Weighted Autoencoders (Burda et al., 2016), https://arxiv.org/abs/1509.00519
        Taming Transformers (Esser et al., 2021), eq. 4 to 7, https://arxiv.org/abs/2012.09841
    """

    def __init__(
        self,
        x: TensorType,
        *,
        encoder: Slot[Encoder] = default("conv"),
        bottleneck: Slot[Bottleneck] = default("gaussian"),
        decoder: Slot[Decoder] = default("conv"),
        likelihood: Slot[Likelihood] = default("mse"),
        critic: Slot[Discriminator] | None = None,
        adversarial: Slot[Adversarial] = default("hinge"),
        regularizers: dict[str, Slot[Regularizer]] | None = None,
        critic_start: int = 0,
        features: Slot[FeatureExtractor] | None = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self.encoder = encoder(x=x)
        self.bottleneck = bottleneck.fed(encoder.where)(h=self.encoder.h)
        self.latents = self.bottleneck.latents
        self.moments = getattr(self.bottleneck, "moments", {})
        self.likelihood = likelihood(x=x)
        self.decoder = decoder.fed(bottleneck.where)(z=list(self.latents.values())[-1], x=self.likelihood.out(x))
        self.critic = critic(x=x, cond=CondType()) if critic else None
        self.adversarial = adversarial()
        self.regularizers = {name: make() for name, make in (regularizers or {}).items()}
        self.critic_start = critic_start
        self.perceptual = Perceptual(features(x=x)) if features else None
        self._weights = made_weights(weights)

    def players(self) -> tuple[Player, ...]:
        """`autoencoder`, and `critic` where there is one."""
        own = Player(
            "autoencoder",
            self.owned("encoder", "bottleneck", "decoder", "likelihood"),
            against=("critic",) if self.critic else (),
            last_layer=self.decoder.last_layer and f"decoder.{self.decoder.last_layer}",
        )
        return (own, Player("critic", ("critic",), start=self.critic_start)) if self.critic else (own,)

    def weights(self, player: str) -> Mapping[str, Weight]:
        """Weights by term; that of `adversarial` is the autoencoder's alone (VQGAN's lambda)."""
        if player == "critic":
            return {term: weight for term, weight in self._weights.items() if term in self.regularizers}
        return self._weights

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """`nll`, `kl`, the bottleneck's, `perceptual`, `adversarial`; the critic's `adversarial` and regularizers."""
        x = batch.tensor
        if player == "critic":
            return self._critic_losses(x, step)
        latents = self.bottleneck(self.encoder(x), step)
        return self._losses(latents, {} if latents.kl is None else {"kl": latents.kl}, x, step)

    @property
    def entropic(self) -> tuple[str, ...]:
        """The bottleneck's first latent, where its entropy is known."""
        return tuple(self.latents)[:1] if hasattr(self.bottleneck, "posterior_entropy") else ()

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """The autoencoder's losses with `entropy`, less the bottleneck's, in place of `kl`; the critic's as ever."""
        x = batch.tensor
        if player == "critic":
            return self._critic_losses(x, step), None
        h = self.encoder(x)
        latents = self.bottleneck(h, step)
        entropy: Tensor = self._density("posterior_entropy")(name, h)
        return self._losses(latents, {"entropy": -entropy}, x, step), latents.values[name]

    def update(self, player: str, step: Step) -> None:
        """Moves the bottleneck's codebooks."""
        update = getattr(self.bottleneck, "update", None)
        if update and player == "autoencoder":
            update(step)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Starts the bottleneck from encoded data, and lets the extractor of features train where it has to."""
        if player != "autoencoder":
            return
        if self.perceptual:
            self.perceptual.prepare(batches)
        if prepare := getattr(self.bottleneck, "prepare", None):
            prepare(_Features(self.encoder, batches), rng)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Decodes draws of the bottleneck's prior."""
        return self._mean(self.bottleneck.sample(num, rng.at("bottleneck")))

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The ELBO of one draw, or the importance-weighted bound of more; one draw is held at a time.

        Raises:
            ValueError: If the likelihood or the bottleneck's latents have no density.
        """
        x = batch.tensor
        h = self.encoder(x)
        if len(draws(self, num)) == 1:
            latents = self.bottleneck(h, Pass(rng.at(0)))
            if latents.kl is not None:
                return self._log_likelihood(_last(latents.values), x) - latents.kl
        name = next(iter(self.latents))
        total = x.new_tensor(-torch.inf)
        for index in range(num):
            latent, log_weight = self._weighed(x, h, name, rng.at(index))
            total = torch.logaddexp(total, log_weight + self._density("log_prior")(name, latent))
        return total - math.log(num)

    @property
    def differentiable(self) -> bool:
        """Whether its likelihood is a density and its draws of the latent are differentiable."""
        return bool(self.entropic) and getattr(self.likelihood, "constant", None) is not None

    def weigh(self, x: Tensor, name: str, rng: Rng) -> tuple[Value, Tensor]:
        """A draw of the bottleneck's posterior."""
        return self._weighed(x, self.encoder(x), name, rng)

    def encode(self, x: Tensor, name: str, rng: Rng | None = None) -> Value:
        """The latent `name` of `x`: its mean, or a draw of q(z | x) with an rng."""
        return self.bottleneck(self.encoder(x), Pass(rng) if rng else None).values[name]

    def decode(self, latent: Value, name: str) -> Tensor:
        """The mean of x given the latent `name`."""
        return self._mean(self.bottleneck.to_z(name, latent))

    def _mean(self, z: Value) -> Tensor:
        return self.likelihood.mean(self.decoder(z))

    def _weighed(self, x: Tensor, h: Value, name: str, rng: Rng) -> tuple[Value, Tensor]:
        latent, log_q = self._density("posterior")(name, h, rng)
        return latent, self._log_likelihood(self.bottleneck.to_z(name, latent), x) - log_q

    def _log_likelihood(self, z: Value, x: Tensor) -> Tensor:
        constant: float | None = getattr(self.likelihood, "constant", None)
        if constant is None:
            raise ValueError(f"{_name(self.likelihood)} is no density of x: Autoencoder has no bound on log p(x)")
        return -self.likelihood.nll(self.decoder(z), x) - constant * self.single.numel

    def _density(self, name: str) -> Callable[..., Any]:
        density: Callable[..., Any] | None = getattr(self.bottleneck, name, None)
        if density is None:
            raise ValueError(f"{_name(self.bottleneck)} has no densities: Autoencoder has no bound on log p(x)")
        return density

    def _losses(self, latents: Latents, rate: Mapping[str, Tensor], x: Tensor, step: Step) -> dict[str, Tensor]:
        """The autoencoder's losses at its latents; `rate`, in nats a sample, is what they cost."""
        out = self.decoder(_last(latents.values))
        nats = {"nll": self.likelihood.nll(out, x), **rate}
        losses = {name: loss.mean() / self.single.numel for name, loss in nats.items()} | latents.losses
        fake = self.likelihood.mean(out)
        if self.perceptual and step.wants("perceptual"):
            losses["perceptual"] = self.perceptual(fake, x).mean()
        if self.critic and step.wants("adversarial"):
            losses["adversarial"] = self.adversarial.generator(self.critic(fake, Cond()))
        return losses

    def _critic_losses(self, x: Tensor, step: Step) -> dict[str, Tensor]:
        if self.critic is None:
            raise ValueError("Autoencoder has no critic to play")
        with torch.no_grad():
            latents = self.bottleneck(self.encoder(x), Pass(step.rng, step.index))
            fake = self._mean(_last(latents.values))
        losses = {"adversarial": self.adversarial.discriminator(self.critic(x, Cond()), self.critic(fake, Cond()))}
        for name, regularizer in self.regularizers.items():
            if step.wants(name):
                losses[name] = regularizer(self.critic.forward, x, Cond())
        return losses


class _Features:
    """The encoder's features of a data set, anew at each iteration."""

    def __init__(self, encoder: Any, batches: Iterable[Batch]) -> None:
        self._encoder, self._batches = encoder, batches

    def __iter__(self) -> Iterator[Value]:
        return (self._encoder(batch.tensor) for batch in self._batches)


def _name(part: object) -> str:
    return type(part).__name__


def _last(values: Mapping[str, Value]) -> Value:
    return list(values.values())[-1]
