r"""Decoded: an autoencoder whose decoder is any Model of x given z, the dual of `latent`.

    z ~ q(z | x) = bottleneck(encoder(x)),   x ~ decoder given z
    log p(x) >= E_q[bound of log decoder(x | z)] - KL(q(z | x) || p(z))

z reaches the decoder as the conditions of an enclosing Model do, so the code is the same for every decoder. With
Diffusion it is a diffusion autoencoder (Preechakul et al., 2022), with Autoregressive over pixel levels a PixelVAE
(Gulrajani et al., 2017); a GAN or a DenoisingGAN decodes in one or a few steps. The bound is a VAE's wherever the
decoder has a bound.

Encoder and bottleneck are trained by one player of the decoder, the last one that is no other's opponent: a denoiser,
a generator. All other players are given z without gradients.

Shape letters: b batch, c channels, n tokens.

References:
    Diffusion Autoencoders (Preechakul et al., 2022), section 3, https://arxiv.org/abs/2111.15640
    PixelVAE: A Latent Variable Model for Natural Images (Gulrajani et al., 2017), section 3,
    https://arxiv.org/abs/1611.05013
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from modkit import kinds
from modkit.kinds import Fact, Note, Slot, Step, Unfit, Weight, default
from modkit.models.bottleneck_model import BottleneckModel
from modkit.models.code_review import review_codes
from modkit.models.given import call_given
from modkit.models.joined import find_joined
from modkit.models.model import Density, Model, make_weights
from modkit.models.passes import Passes, map_batches, select_fields
from modkit.models.player import Player, join_players
from modkit.models.posterior import get_last
from modkit.models.prior_review import review_priors
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.samplers.sampling import drop_start
from modkit.types import Batch, Cond, CondType, Event, Latents, TensorType, Value, checked

__all__ = ["Decoded"]


class _Way(NamedTuple):
    """How z reaches the decoder: the type of the conditions, and their values."""

    describe: Callable[[TensorType], CondType]
    send: Callable[[Any], Cond]
    words: str


_WAYS = {
    "concat": _Way(lambda z: CondType(concat=z), lambda z: Cond(concat=z), "a map beside x"),
    "vector": _Way(lambda z: CondType(vector=z.numel), lambda z: Cond(vector=z.flatten(1)), "a vector"),
    "context": _Way(
        lambda z: CondType(context=(z.numel // z.shape[0], z.shape[0])),
        lambda z: Cond(context=rearrange(z, "b c ... -> b (...) c")),
        "tokens",
    ),
}


@checked
class Decoded(BottleneckModel):
    """An encoder, a bottleneck, and any Model that takes conditions as the decoder.

    The decoder's losses have the prefix `decoder/`. `kl` is in nats per value of x, as is the `nll` of `flow` and of
    `autoregressive`, beside which a weight of 1 gives the ELBO. The `denoising` of a diffusion is weighted over time,
    and the weight of `kl` beside it sets how much z holds.

    Decoding draws x from p(x | z): there is no mean. Without an rng, the draw is the same in every call.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model, for the decoder.
        fields: The data's fields, for the decoder, whose own conditioner may read some.
        encoder: Maps data to features.
        bottleneck: Maps features to latents.
        decoder: A Model of x given z.
        to: How z reaches the decoder: `concat`, as a map beside x; `vector`, as an embedding; `context`, as one token
            for each position of a map. By default a map beside x if both are maps of one rank, otherwise a vector.
        weights: Weights of the losses by term (`kl`, `commitment`, …); the default weight is 1. The decoder's own
            `weights` are for its losses.

    Raises:
        ValueError: If z is a hierarchy or codes, z does not fit `to`, or the decoder takes no such condition, pairs
            its data with noise, or is not trained in one stage.

    Examples:
        >>> decoder = {"use": "diffusion", "network": "mlp", "sampler": {"use": "ddim", "steps": 2}}
        >>> model = Decoded(TensorType((1, 8, 8), (-1, 1)), encoder="mlp", decoder=decoder)
        >>> [player.name for player in model.players()]
        ['decoder/denoiser']
        >>> x = torch.zeros(2, 1, 8, 8)
        >>> torch.equal(model.reconstruct(x), model.reconstruct(x))
        True
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        encoder: Slot[kinds.Encoder] = default("conv"),
        bottleneck: Slot[kinds.Bottleneck] = default("gaussian"),
        decoder: Slot[Model] = default("diffusion"),
        to: Literal["concat", "vector", "context"] | None = None,
        weights: dict[str, Slot[Weight] | float] | None = None,
    ) -> None:
        super().__init__()
        self.event = x
        self._build_bottleneck(encoder, bottleneck, x, CondType())
        self.z = list(self.latents.values())[-1]
        if isinstance(self.z, tuple) or self.z.classes is not None:
            got = f"a hierarchy of {len(self.z)} levels" if isinstance(self.z, tuple) else f"{self.z}"
            raise Unfit("bottleneck", f"Decoded expects z to be one continuous tensor, got {got} of {bottleneck.where}")
        maps = len(self.z.shape) == len(x.shape)
        if to == "concat" and not maps:
            raise Unfit("to", f"expected z as a map of the rank of x, {x}, got {self.z} of {bottleneck.where}")
        to = to or ("concat" if maps and self.z.shape[1:] else "vector")
        self._way = _WAYS[to]
        source, told = f"z of {bottleneck.where} as `to: {to}`", cond.merge(self._way.describe(self.z))
        self.decoder: Model = decoder.name_source(source)(x=x, cond=told, fields=fields or {})
        self.reads, self.inputs = self.decoder.reads, self.decoder.inputs
        self._joined = find_joined("Decoded", "encoder", "decoder", decoder, self.decoder)
        self._weights = make_weights(weights)
        self.condensers = self.list_modules("encoder", "bottleneck")

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """Refuses any event but one continuous tensor that the decoder accepts."""
        decoder: Slot[Model] = slots["decoder"]
        return super().accepts(event) or decoder.accepts(event)

    def players(self) -> tuple[Player, ...]:
        """The decoder's players; one owns the encoder and the bottleneck as well."""
        return join_players(self.decoder.players(), "decoder", self._joined, self.list_modules("encoder", "bottleneck"))

    def weights(self, player: str) -> Mapping[str, Weight]:
        """The weights of the decoder's losses, by prefixed term, of `kl`, and of the bottleneck's losses."""
        inner = self.decoder.weights(player.removeprefix("decoder/"))
        own = self._weights if player == self._joined else {}
        return {**{f"decoder/{term}": weight for term, weight in inner.items()}, **own}

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the decoder's losses given z, and for one player `kl` and the bottleneck's losses."""
        if player != self._joined:
            with torch.no_grad():
                latents = self.bottleneck(self._encode_batch(batch), StepContext(step.rng, step.index))
            return self._compute_decoder_losses(player, latents, batch, step)
        latents = self.bottleneck(self._encode_batch(batch), step)
        rate = {} if latents.total_kl is None else {"kl": latents.total_kl}
        return self._compute_losses(latents, rate, batch, step)

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """Computes the losses with `entropy`, the latent's negative entropy or its estimate, in place of `kl`."""
        if player != self._joined:
            return self.losses(player, batch, step), None
        latents, entropy = self._q.open(name, self._encode_batch(batch), step)
        return self._compute_losses(latents, {"entropy": entropy}, batch, step), latents.values[name]

    def update(self, player: str, step: Step) -> None:
        """Updates the bottleneck's codebooks, and the decoder."""
        if player == self._joined and (update := self._q.extras.update):
            update(step)
        self.decoder.update(player.removeprefix("decoder/"), step.at("decoder"))

    @torch.no_grad()
    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the bottleneck from encoded data, then the decoder's player from data with their z."""
        if player == self._joined:
            self._prepare_bottleneck(batches, rng)
        passes = count(1)

        def start() -> Iterator[Batch]:
            draws = rng.at("encode").at(next(passes))
            return iter(map_batches(batches, lambda batch, first: self._draw_given(batch, draws.rows(first))))

        given = Passes(start, select_fields(batches))
        self.decoder.prepare(player.removeprefix("decoder/"), given, rng.at("decoder"))

    def complete(
        self, num: int, fields: Mapping[str, Tensor], rng: Rng, *, drawn: Mapping[str, Tensor] = {}
    ) -> Mapping[str, Tensor]:
        """Completes the fields that the decoder reads."""
        return self.decoder.complete(num, fields, rng.at("decoder"), drawn=drawn)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws from the decoder, given draws from the bottleneck's prior."""
        return self._draw(self.decoder.draw, self.bottleneck.sample(num, rng.at("bottleneck")), fields, cond, rng)

    def draw_as_latent(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws from the decoder, with the noise of its likelihood, given draws from the bottleneck's prior."""
        z = self.bottleneck.sample(num, rng.at("bottleneck"))
        return self._draw(self.decoder.draw_as_latent, z, fields, cond, rng)

    def explain_undrawn(self) -> str | None:
        """Returns the reason of a decoder that cannot draw, or of a bottleneck without a prior."""
        return self.decoder.explain_undrawn() or super().explain_undrawn()

    def review(self) -> Iterator[Note]:
        """How z reaches the decoder, whether the decoder can draw, and how much codes tell of a sample."""
        yield Fact("decoder", f"it is given z, {self.z}, as {self._way.words}")
        yield from review_priors({"decoder": self.decoder})
        yield from review_codes(self.latents.values())

    def explain_lack(self, density: Density, num: int = 1, name: str | None = None) -> str | None:
        """Returns the reason of a decoder without a bound, or of a bottleneck without a density of the latent.

        A KL stands in for the latter in the bound.
        """
        if density == "log_prob":
            return super().explain_lack(density, num, name)
        if reason := self.decoder.explain_lack("bound", num):
            return reason
        lack = self._q.explain_lack(prior=density == "bound", name=name)
        return None if lack and density == "bound" and self._q.has_kl(self.encoder.h) else lack

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The ELBO by one draw of z and `num` draws of the decoder's own bound.

        Several draws of z are not combined by importance weights, since the decoder's bound may be random itself.

        Raises:
            ValueError: If the decoder has no bound, or the bottleneck has neither a KL nor densities.
        """
        given, gain = self._open(batch, rng)
        return gain + self.decoder.bound(given, num, rng.at("decoder"), grain=grain)

    @property
    def discrete(self) -> bool:
        """Whether the decoder gives probabilities of x."""
        return self.decoder.discrete

    @property
    def differentiable(self) -> bool:
        """Whether the decoder is, and draws of the latent are."""
        return bool(self.entropic) and self.decoder.differentiable

    def review_cross_entropy(self) -> Iterator[Note]:
        """That of the decoder."""
        yield from (note.move("decoder") for note in self.decoder.review_cross_entropy())

    def weigh(self, x: Tensor, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> tuple[Value, Tensor]:
        """Draws the latent from the bottleneck's posterior; log p(x | latent) is one draw of the decoder's bound."""
        latent, log_q = self._q.draw(name, self._encode_batch(Batch(x, fields)), rng)
        given = self._add_z(Batch(x, fields), self.bottleneck.to_z(name, latent))
        return latent, self.decoder.bound(given, 1, rng.at("decoder")) - log_q

    def decode(self, latent: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes the latent `name` to a draw of x, from a fixed source if no rng is given."""
        z = self.bottleneck.to_z(name, latent)
        return self._draw(self.decoder.draw, z, fields, Cond(), Rng("decode") if rng is None else rng)

    def decode_as_latent(self, latent: Value, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes the latent `name` to a draw of x, with the noise of the decoder's likelihood."""
        return self._draw(self.decoder.draw_as_latent, self.bottleneck.to_z(name, latent), fields, Cond(), rng)

    def _encode_batch(self, batch: Batch) -> Value:
        return call_given(self.encoder, batch.tensor, Cond())

    def _draw(self, draw: Callable[..., Value], z: Value, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Draws x given z by a method of the decoder, which starts from noise of its own."""
        x = draw(len(z), fields, cond.merge(self._way.send(z)), drop_start(rng.at("decoder")))
        assert isinstance(x, Tensor), "a Model draws its event"
        return x

    def _draw_given(self, batch: Batch, rng: Rng) -> Batch:
        return self._add_z(batch, get_last(self.bottleneck(self._encode_batch(batch), StepContext(rng)).values))

    def _add_z(self, batch: Batch, z: Value) -> Batch:
        """Returns the batch with z among its conditions."""
        return replace(batch, cond=batch.cond.merge(self._way.send(z)))

    def _open(self, batch: Batch, rng: Rng) -> tuple[Batch, Tensor]:
        """Draws z for the decoder, and computes -KL(q(z | x) || p(z)), or log p(z) - log q(z | x) of the draw."""
        h = self._encode_batch(batch)
        latents = self.bottleneck(h, StepContext(rng.at("bottleneck")))
        if latents.total_kl is not None:
            return self._add_z(batch, get_last(latents.values)), -latents.total_kl
        name = next(iter(self.latents))
        latent, log_q = self._q.draw(name, h, rng.at("density"))
        return self._add_z(batch, self.bottleneck.to_z(name, latent)), self._q.compute_log_prior(name, latent) - log_q

    def _compute_losses(
        self, latents: Latents, rate: Mapping[str, Tensor], batch: Batch, step: Step
    ) -> dict[str, Tensor]:
        """Computes the losses of the player that trains the encoder; `rate` is in nats per sample, by term."""
        own = {name: loss.mean() / self.single.numel for name, loss in rate.items()}
        return self._compute_decoder_losses(self._joined, latents, batch, step) | own | latents.losses

    def _compute_decoder_losses(self, player: str, latents: Latents, batch: Batch, step: Step) -> dict[str, Tensor]:
        given = self._add_z(batch, get_last(latents.values))
        losses = self.decoder.losses(player.removeprefix("decoder/"), given, step.at("decoder"))
        return {f"decoder/{term}": loss for term, loss in losses.items()}
