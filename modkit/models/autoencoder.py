r"""Autoencoder: an encoder, a bottleneck and a decoder with a likelihood, and judges of what they make.

    h = encoder(x),   z ~ q(z | h),   -log p(x | z) + KL(q(z | x) || p(z)) + the bottleneck's own losses

With the bottleneck `identity` it is an autoencoder, with `gaussian` a VAE (Kingma & Welling, 2014, eq. 3), with `vq` a
VQ-VAE (van den Oord et al., 2017). A weight on `kl` makes the VAE a β-VAE (Higgins et al., 2017). With the judges
`perceptual` and `critic` it is the first stage of VQGAN and of latent diffusion.

With a conditioner, the encoder and the decoder are given the conditions c: q(z | x, c) and p(x | z, c), a conditional
VAE (Sohn et al., 2015). With `input`, the encoder reads a field in x's place, such as a noisy copy, while the losses
compare with x: a denoising autoencoder (Vincent et al., 2008). The bound holds for any q, and so for q(z | field).

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modkit import kinds
from modkit.kinds import Draw, Round, Slot, Step, Weight, default, read_extras
from modkit.losses.review import review_coders
from modkit.models.bottleneck_model import BottleneckModel
from modkit.models.code_review import review_codes
from modkit.models.evidence import BatchEvidence, check_weighed
from modkit.models.former import move_judges
from modkit.models.given import call_given, check_conditional, find_input, read_input
from modkit.models.judges import Judges
from modkit.models.model import Density, check_draws, make_weights
from modkit.models.observation import Observation
from modkit.models.passes import select_fields
from modkit.models.penalties import Penalties
from modkit.models.player import Player
from modkit.models.posterior import get_last
from modkit.models.prior_review import explain_undrawn
from modkit.models.rival import repeat_conditioner
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, TensorType, Value, checked

__all__ = ["Autoencoder"]


@checked
class Autoencoder(BottleneckModel):
    """An encoder, a bottleneck and a decoder, and what judges them beside the likelihood.

    Conditions reach the encoder, the decoder and critics; one of the first two may leave them out.

    `nll` and `kl` are in nats per value of x: averaged over the batch and divided by the number of values of a sample.
    So are judges' losses of latents, with the weights of the papers whatever the number of values: β-TCVAE with β = 6
    has `judges: {tc: total-correlation}` and `weights: {tc: 5}`, FactorVAE with γ = 35 `latent-critic: 35`.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model.
        fields: The data's fields.
        encoder: Maps data to features.
        bottleneck: Maps features to latents.
        decoder: Maps latents to the likelihood's parameters.
        likelihood: The distribution p(x | z).
        objective: What the model maximises: the ELBO by default, whose losses are `nll` and `kl`.
        regularizers: Penalties on the autoencoder, by the names of their terms, divided by the number of values of x,
            as `nll` is.
        conditioner: Computes conditions from fields; it is trained with the autoencoder. A critic has one of its own.
        input: Name of a field that the encoder reads in x's place; x itself by default.
        judges: What judges reconstructions and latents beside the likelihood, by name: `perceptual`, a `critic`
            (VQGAN, VAE-GAN), penalties on the latents of a batch as a whole (WAE, β-TCVAE, DIP-VAE), a critic of
            latents (AAE, FactorVAE).
        weights: Weights of the losses by term (`kl`, `perceptual`, `critic`, `commitment`, …); the default weight is 1.
            VQGAN's lambda is `critic: {use: adaptive, against: [nll, perceptual]}`.

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

    expand_params = staticmethod(move_judges)

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
        objective: Slot[kinds.Objective] = default("elbo"),
        regularizers: dict[str, Slot[kinds.Regularizer]] | None = None,
        conditioner: Slot[kinds.Conditioner] = default("none"),
        input: str | None = None,
        judges: dict[str, Slot[kinds.Judge]] | None = None,
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
        self.objective = objective(z=next(iter(self.latents.values())))
        make = decoder.name_source(bottleneck.where)
        self.decoder = make(z=list(self.latents.values())[-1], x=self.likelihood.out(x), cond=cond)
        check_conditional(cond, self.encoder, self.decoder)
        offers = ("fake", "z", "decoder") if input else ("fake", "z", "encoder", "decoder")  # of x, not of a field
        self.penalties = Penalties(self, regularizers, {"autoencoder": offers})
        repeat = partial(repeat_conditioner, self, conditioner, fields)
        types = {"x": x, "z": list(self.latents.values())[-1], "cond": cond, "repeat": repeat}
        self.judges = Judges(judges, types, self._list_offers(bottleneck.where))
        check_weighed(self.objective, self._q, bottleneck.where, self.judges.replacing, regularizers or judges)
        self._weights = make_weights(weights)
        self.condensers = self.list_modules("conditioner", "encoder", "bottleneck")

    def players(self) -> tuple[Player, ...]:
        """`autoencoder`, then the judges that play."""
        rivals = self.judges.players()
        own = self.list_modules("conditioner", "encoder", "bottleneck", "decoder", "likelihood", "objective")
        own = (*own, *self.judges.list_modules(), *self.penalties.list_modules("autoencoder"))
        last = self.decoder.last_layer and f"decoder.{self.decoder.last_layer}"
        against = tuple(rival.name for rival in rivals)
        return (Player("autoencoder", own, against=against, last_layer=last), *rivals)

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the losses of a judge, or of the autoencoder: its objective's, its bottleneck's and its judges'."""
        cond = self._compute_cond(batch.fields, batch.cond)
        if player != "autoencoder":
            return self._play(player, batch, cond, step)
        h = self._compute_features(batch.tensor, batch.fields, cond)
        draw, nats = self.objective(self._make_evidence(h, batch, cond, step), step)
        return self._compute_losses(h, draw, nats, batch, cond, step)

    def open_losses(self, player: str, batch: Batch, step: Step, name: str) -> tuple[dict[str, Tensor], Value | None]:
        """Computes the losses with `entropy`, the latent's negative entropy or its estimate, in place of `kl`."""
        cond = self._compute_cond(batch.fields, batch.cond)
        if player != "autoencoder":
            return self._play(player, batch, cond, step), None
        if not read_extras(self.objective, kinds.ObjectiveExtras).exact:
            raise ValueError(
                "Autoencoder expects the objective `elbo` in joint training, where `entropy` and `cross_entropy` stand "
                f"in place of `kl`, got {type(self.objective).__name__}"
            )
        h = self._compute_features(batch.tensor, batch.fields, cond)
        latents, entropy = self._q.open(name, h, step)
        draw = self._make_evidence(h, batch, cond, step).decode(latents)
        losses = self._compute_losses(h, draw, {**draw.nats, "entropy": entropy}, batch, cond, step)
        return losses, latents.values[name]

    def update(self, player: str, step: Step) -> None:
        """Updates the bottleneck's codebooks, the judges, and the penalties that keep statistics."""
        self.judges.update(player, step)
        self.penalties.update(player, step)
        if player == "autoencoder" and (update := self._q.extras.update):
            update(step)

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the conditioner, the judges, and the bottleneck from encoded data."""
        self.judges.prepare(player, batches)
        if player != "autoencoder":
            return
        self.conditioner.prepare(select_fields(batches))
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
        yield from review_coders({"encoder": self.encoder, "decoder": self.decoder}, self.penalties.parts)
        yield from self.judges.review()
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

    def _compute_features(self, x: Tensor, fields: Mapping[str, Tensor], cond: Cond) -> Value:
        return call_given(self.encoder, read_input(x, fields, self.input), cond)

    def _encode_batch(self, batch: Batch) -> Value:
        return self._compute_features(batch.tensor, batch.fields, self._compute_cond(batch.fields, batch.cond))

    @property
    def _p(self) -> Observation:
        return Observation(self.decoder, self.likelihood, self.single)

    def _list_offers(self, source: str) -> dict[str, str | None]:
        """Lists the members of a round that judges may use, each with the reason if it is not there."""
        undrawn, got = explain_undrawn(self.bottleneck), f"got {source}"
        prior = undrawn and f"expected a bottleneck with one, such as `deterministic` or `gaussian`, {got}: {undrawn}"
        lacks = self._q.extras.posterior_moments is None
        moments = f"expected a bottleneck whose q(z | x) has them, as `gaussian`, {got}" if lacks else None
        offers = {"fake": None, "z": None, "decoder": None, "prior": prior, "moments": moments}
        return {**offers, "encoder": "its input is a field"} if self.input else {**offers, "encoder": None}

    def _make_evidence(self, h: Value, batch: Batch, cond: Cond, step: Step) -> BatchEvidence:
        def compare(out: Tensor) -> Mapping[str, Tensor]:
            if not self.judges.replacing:
                return {"nll": self.likelihood.nll(out, batch.tensor)}
            fake = self.likelihood.mean(out)
            return self.judges.replace(Round(batch.tensor, cond, step.rng, fake, batch=batch))

        return BatchEvidence(self._q, self._p, h, batch.tensor, cond, step, compare)

    def _compute_losses(
        self, h: Value, draw: Draw, nats: Mapping[str, Tensor], batch: Batch, cond: Cond, step: Step
    ) -> dict[str, Tensor]:
        """Computes the losses in nats per value of x, the losses of latents and reconstructions, and the penalties."""
        numel = self.single.numel
        losses = {name: loss.mean() / numel for name, loss in nats.items()} | dict(draw.losses)
        makes = self.penalties.parts or "fake" in self.judges.needs
        round = self._make_round(batch, cond, h, draw.z, draw.out if makes else None, step)
        losses |= self.judges.compute(round, step, numel)
        penalties = self.penalties.compute("autoencoder", step, round)
        return losses | {name: penalty / numel for name, penalty in penalties.items()}

    def _play(self, player: str, batch: Batch, cond: Cond, step: Step) -> dict[str, Tensor]:
        """Computes the losses of a judge, at latents and reconstructions without gradients."""
        with torch.no_grad():
            h = self._compute_features(batch.tensor, batch.fields, cond)
            z = get_last(self.bottleneck(h, StepContext(step.rng, step.index)).values)
            out = call_given(self.decoder, z, cond) if "fake" in self.judges.read_needs(player) else None
            round = self._make_round(batch, cond, h, z, out, step)
        return self.judges.play(player, round, step)

    def _make_round(self, batch: Batch, cond: Cond, h: Value, z: Value, out: Tensor | None, step: Step) -> Round:
        """Makes a round; without `out`, it has no reconstructions, whose mean some likelihoods compute slowly."""

        def encode(x: Tensor) -> Value:
            return get_last(self.bottleneck(call_given(self.encoder, x, cond), None).values)

        def compute_moments() -> tuple[Value, Value]:
            moments = self._q.extras.posterior_moments
            assert moments is not None, "judges that need it are refused"
            return moments(list(self.bottleneck.latents)[-1], h)

        fake: Any = None if out is None else self.likelihood.mean(out)
        return Round(
            batch.tensor,
            cond,
            step.rng,
            fake,
            z,
            encoder=encode,
            decoder=partial(self._p.decode, cond=cond),
            prior=partial(self.bottleneck.sample, len(batch)),
            moments=compute_moments,
            batch=batch,
        )
