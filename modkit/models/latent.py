r"""Latent: an autoencoder, and any Model as the prior of one of its latents.

    x = decode(z),   z ~ prior,   the prior sees (z - mean) / std

A Latent can be used wherever an autoencoder can. With Diffusion as its prior it is latent diffusion (Rombach et al.,
2022), with a VAE a two-stage VAE (Dai & Wipf, 2019); the code is the same for every prior. The autoencoder's latents
are offered to the prior in their order, and the first that it accepts is used.

    log p(x) >= E_q[log p(x | z) - log q(z | x) + bound of log prior((z - mean) / std) - sum log std]

In two-stage training, the autoencoder minimises its own loss, and the prior is then fitted to its latents. In joint
training (Vahdat et al., 2021), in one stage, the autoencoder maximises the bound above: in place of its KL to its own
prior it has

    KL(q(z | x) || prior) = E_q[-log prior(z)] - H(q(z | x)),

with the losses `cross_entropy`, through which gradients reach the encoder but not the prior, and `entropy`, which is
log q(z | x) of the draw where it has no closed form (a posterior with a flow, a `ladder` under a `cascade`). The
prior's own loss does not change; it is computed at latents without gradients, since otherwise the encoder would learn
latents that are easy to predict.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor

from modkit.kinds import Fact, Note, Slot, Step, Unfit, Weight, default
from modkit.losses.importance import average_weights
from modkit.models.given import complete_in_turn
from modkit.models.latent_coder import LatentCoder
from modkit.models.latent_scale import LatentScale, make_unit
from modkit.models.model import Density, Model, check_draws
from modkit.models.passes import Passes, map_batches, select_fields
from modkit.models.player import Player, prefix_player
from modkit.models.prior_review import review_priors
from modkit.models.step import StepContext
from modkit.nn.frozen import is_frozen
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Event, PositiveFloat, TensorType, Value, checked, split_levels

__all__ = ["Latent"]

_MEASURED = 50_000  # samples whose latents are measured: encoding all of a large data set would take hours


@checked
class Latent(Model):
    """An autoencoder with a prior over one of its latents.

    The mean and standard deviation of a continuous latent are measured before the prior's first turn, on at most 50,000
    samples: one number per level, so that every prior is given latents of unit scale; codes are left unchanged. A
    training that goes on from another one measures them again if it trains the autoencoder as well. The prior's type
    states this deviation of 1, in which `edm`, `flow` and `log-normal` count noise levels.

    Samples are means of p(x | z), but a latent drawn by a prior that has a likelihood (a VAE) has that likelihood's
    noise, without which it would vary less than the latents that the decoder was trained on. `gaussian` learns how
    much; `mse` and `l1` have unit scale, as much as the whole latent, and suit only a prior whose `kl` has weight 1.

    In joint training the latent is not scaled, since nothing can be measured yet; its scale follows from the prior's
    cross entropy, and the prior's type states the deviation 1 of a standard normal. An untrained prior that is standard
    normal (a diffusion with the parametrization `v` or `edm`) makes the autoencoder a VAE while only the autoencoder is
    trained. To keep the latent from changing faster than the prior can follow, begin with such a stage, and give the
    autoencoder a lower learning rate or rarer turns in the next one.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model, for the prior.
        fields: The data's fields.
        autoencoder: A Model that encodes.
        prior: Any Model that accepts one of the autoencoder's latents.
        at: Name of the latent, by default the first that the prior accepts.
        scale: Factor of the latent in place of the measured 1 / std, with a mean of 0. By default, the scale is the one
            that the autoencoder gives for the latent; otherwise it is measured.
        by_channel: Whether to measure a mean and a standard deviation for each channel of the latent (the first axis of
            a level) rather than for the whole level, even if the autoencoder gives a scale.
        joint: Whether to train both in one stage (LSGM). The autoencoder then has the losses `entropy` and
            `cross_entropy`, in nats per value of x, in place of `kl`, with the weights of its `weights`: the beta of a
            β-VAE is the weight of both.

    Raises:
        ValueError: If the autoencoder does not encode, the prior accepts none of its latents, or `by_channel` is set
            where `scale` is or in joint training; in joint training, also if the latent has neither a known entropy nor
            a density, the autoencoder is frozen, or the prior's cross entropy is not differentiable.

    Examples:
        >>> from modkit.models import Autoencoder, Diffusion
        >>> x = TensorType((1, 8, 8), (-1, 1))
        >>> autoencoder = Autoencoder(x, encoder="mlp", decoder="mlp")
        >>> prior = Diffusion(autoencoder.latents["continuous"], network="mlp")
        >>> model = Latent(x, autoencoder=autoencoder, prior=prior)
        >>> [player.name for player in model.players()]
        ['autoencoder/autoencoder', 'prior/denoiser']

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3,
        https://arxiv.org/abs/2112.10752
        Score-based Generative Modeling in Latent Space (Vahdat et al., 2021), section 3 and theorem 1,
        https://arxiv.org/abs/2106.05931
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType = CondType(),
        fields: Mapping[str, TensorType] | None = None,
        *,
        autoencoder: Slot[Model] = default("autoencoder"),
        prior: Slot[Model] = default("diffusion"),
        at: str | None = None,
        scale: PositiveFloat | None = None,
        by_channel: bool = False,
        joint: bool = False,
    ) -> None:
        super().__init__()
        self.event = x
        self.joint = joint
        fields = fields or {}
        self.autoencoder = autoencoder(x=x, cond=CondType(), fields=fields)
        if not self.autoencoder.latents:
            raise Unfit(
                "autoencoder",
                f"Latent expects an autoencoder that encodes, got {autoencoder.where}, which has no latents",
            )
        self.at = _choose(autoencoder, prior, self.autoencoder.latents, at)
        event = self.autoencoder.latents[self.at]
        if by_channel and (joint or scale is not None):
            given = "joint training, which measures nothing" if scale is None else f"the scale {scale:g}"
            raise ValueError(f"Latent expects by_channel where its scale is measured, got {given}")
        known = None if by_channel else self.autoencoder.moments.get(self.at)
        factor = 1.0 if joint and scale is None else scale
        self.scale = LatentScale(self, event, factor, known, by_channel=by_channel)
        coder = LatentCoder(self.autoencoder, self.at, self.scale)
        source = f"the latent {self.at!r} of {autoencoder.where}"
        self.prior = prior.name_source(source)(x=_scale_event(event), cond=cond, fields=fields, coder=coder)
        self.reads = tuple(dict.fromkeys((*self.autoencoder.reads, *self.prior.reads)))
        self.inputs = tuple(dict.fromkeys((*self.autoencoder.inputs, *self.prior.inputs)))
        self.latents = self.prior.latents
        self.start_noise, self.sources = self.prior.start_noise, self.prior.sources
        self.moments = self.prior.moments
        if self.autoencoder.condensers is not None:
            self.condensers = tuple(f"autoencoder.{path}" for path in self.autoencoder.condensers)
            self.condensed = ("prior/*", *(f"autoencoder/{pattern}" for pattern in self.autoencoder.condensed))
        if joint:
            self._check_joint(autoencoder, prior)

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """Refuses the events that its autoencoder refuses."""
        autoencoder: Slot[Model] = slots["autoencoder"]
        return autoencoder.accepts(event)

    @property
    def coder(self) -> Model | None:
        """The Model inside the autoencoder that encodes x."""
        return self.autoencoder.coder

    def players(self) -> tuple[Player, ...]:
        """The autoencoder's players, then the prior's."""
        sides = (("autoencoder", self.autoencoder), ("prior", self.prior))
        return tuple(prefix_player(player, name) for name, side in sides for player in side.list_active_players())

    def stages(self) -> tuple[tuple[str, ...], ...]:
        """The autoencoder's stages, then the prior's, without a frozen side; in joint training, one stage of both."""
        sides = (("autoencoder", self.autoencoder), ("prior", self.prior))
        if self.joint:
            return (tuple(f"{name}/*" for name, side in sides if side.list_active_players()),)
        return tuple(
            tuple(f"{name}/{pattern}" for pattern in stage)
            for name, side in sides
            if side.list_active_players()
            for stage in side.stages()
        )

    def weights(self, player: str) -> Mapping[str, Weight]:
        """The weights of the losses of the player's side, by prefixed term."""
        side, _, name = player.partition("/")
        return {f"{side}/{term}": weight for term, weight in getattr(self, side).weights(name).items()}

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the losses of the player's side, those of the prior at latents without gradients."""
        side, _, name = player.partition("/")
        if side == "autoencoder" and self.joint:
            losses = self._compute_joint_losses(name, batch, step)
        elif side == "autoencoder":
            losses = self.autoencoder.losses(name, replace(batch, cond=Cond()), step.at(side))
        else:
            latent = self._encode_batch(batch, step.rng.at("encode"))
            losses = self.prior.losses(name, latent, step.at(side))
        return {f"{side}/{term}": loss for term, loss in losses.items()}

    def update(self, player: str, step: Step) -> None:
        """Updates the player's side."""
        side, _, name = player.partition("/")
        getattr(self, side).update(name, step.at(side))

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the player's side; before the prior's first player, it measures the latent's mean and deviation.

        A scale that is known from an earlier training is measured again if the autoencoder has been prepared since, to
        be trained on.
        """
        side, _, name = player.partition("/")
        if side == "autoencoder":
            self.scale.mark_due()
            self.autoencoder.prepare(name, batches, rng.at(side))
            return
        if self.scale.due:
            draw = rng.at("scale")
            self.scale.measure(
                map_batches(
                    batches,
                    lambda batch, first: self.autoencoder.encode(
                        batch.tensor, self.at, draw.rows(first), fields=batch.fields
                    ),
                    _MEASURED,
                )
            )
        passes = count(1)

        def encode() -> Iterator[Batch]:
            """Encodes the data with new draws in each pass."""
            draws = rng.at("encode").at(next(passes))
            return iter(map_batches(batches, lambda batch, first: self._encode_batch(batch, draws.rows(first))))

        self.prior.prepare(name, Passes(encode, select_fields(batches)), rng.at(side))

    def complete(
        self, num: int, fields: Mapping[str, Tensor], rng: Rng, *, drawn: Mapping[str, Tensor] = {}
    ) -> Mapping[str, Tensor]:
        """Completes the fields that both sides read; those that the autoencoder reads are drawn first.

        If the prior reads one of them together with others, it draws them all.
        """
        sides = (("autoencoder", self.autoencoder), ("prior", self.prior))
        return complete_in_turn(sides, num, fields, rng, drawn)

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Decodes draws from the prior."""
        latent, fields = self._draw_latent(num, fields, cond, rng)
        return self.autoencoder.decode(latent, self.at, rng.at("autoencoder"), fields=fields)

    def draw_as_latent(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Decodes draws from the prior, with the noise of the autoencoder's likelihood."""
        latent, fields = self._draw_latent(num, fields, cond, rng)
        return self.autoencoder.decode_as_latent(latent, self.at, rng.at("autoencoder"), fields=fields)

    def draw_source(self, num: int, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Draws values of a source of the prior."""
        return self.prior.draw_source(num, name, rng, fields=fields)

    def decode_source(self, source: Tensor, name: str, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes what the prior decodes a source to, without the noise of the prior's likelihood."""
        self._check_scale()
        fields = self.complete(len(source), fields, Rng("source"))
        latent = self.scale.invert(self.prior.decode_source(source, name, fields=fields))
        return self.autoencoder.decode(latent, self.at, fields=fields)

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The bound by one draw of the latent and `num` draws of the prior's own bound.

        Where the prior's density is exact, it is the importance-weighted bound by `num` draws of the latent. Elsewhere
        several draws are not combined by importance weights: the prior's bound is random itself, and the mean of its
        exponential can exceed the prior's density (Jensen's inequality).

        Raises:
            ValueError: If the autoencoder has no density of its latent, or the prior has no bound or has not been
                prepared.
        """
        if not self.prior.exact or check_draws(self, num) == range(1):
            return self._compute_bound(batch, num, rng)
        return average_weights(lambda rng: self._compute_bound(batch, 1, rng), num, rng)

    def log_prob(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0, steps: int = 64) -> Tensor:
        """The bound by one draw of the latent and the prior's own log p, which is no bound if the prior has none.

        Raises:
            ValueError: If the autoencoder has no density of its latent, or the prior has no log p or has not been
                prepared.
        """
        latent, log_weight = self._weigh_scaled(batch.tensor, batch.fields, rng.at("autoencoder"))
        return log_weight + self.prior.log_prob(replace(batch, x=latent), num, rng.at("prior"), steps=steps)

    def explain_lack(self, density: Density, num: int = 1, name: str | None = None) -> str | None:
        """Returns the reason of the autoencoder, whose latent is weighed, or of the prior."""
        return self.autoencoder.explain_lack("weigh", name=self.at) or self.prior.explain_lack(density, num, name)

    @property
    def discrete(self) -> bool:
        """Whether the autoencoder's likelihood gives probabilities of x."""
        return self.autoencoder.discrete

    @property
    def differentiable(self) -> bool:
        """Whether both Models are, and are trained jointly, since the scale of the latent has to be known at first."""
        return self.joint and self.autoencoder.differentiable

    def cross_entropy(self, batch: Batch, step: Step) -> Tensor:
        """The cross entropy by one draw of the latent and the prior's own cross entropy."""
        latent, log_weight = self._weigh_scaled(batch.tensor, batch.fields, step.rng.at("autoencoder"))
        return self.prior.cross_entropy(replace(batch, x=latent), step.at("prior")) - log_weight

    def review(self) -> Iterator[Note]:
        """The scale of the latent that the prior is given, whether the prior can draw, and its cross entropy."""
        if scale := self.scale.describe():
            yield Fact("", f"the prior is given the latent {self.at!r}, scaled {scale}")
        yield from review_priors({"prior": self.prior})
        if self.joint and not is_frozen(self.prior):
            yield from (note.move("prior") for note in self.prior.review_cross_entropy())

    def weigh(self, x: Tensor, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> tuple[Value, Tensor]:
        """Draws through both: from the autoencoder's posterior, then from the prior's."""
        latent, inner = self._weigh_scaled(x, fields, rng.at("autoencoder"))
        if isinstance(latent, tuple):
            raise ValueError(f"{self.prior.__class__.__name__} expects one tensor, got a hierarchy")
        outer_latent, outer = self.prior.weigh(latent, name, rng.at("prior"), fields=fields)
        return outer_latent, inner + outer

    def condense(self, x: Tensor, name: str = "", *, fields: Mapping[str, Tensor] = {}) -> tuple[Tensor, ...]:
        """Condenses `x` with only the autoencoder."""
        return self.autoencoder.condense(x, self.at, fields=fields)

    def encode(self, x: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Value:
        """Encodes `x` with the autoencoder, then with the prior."""
        latent = self._encode_scaled(x, fields, rng and rng.at("autoencoder"))
        if isinstance(latent, tuple):
            raise ValueError(f"{self.prior.__class__.__name__} expects one tensor, got a hierarchy")
        return self.prior.encode(latent, name, rng and rng.at("prior"), fields=fields)

    def decode(self, latent: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes a latent with the prior, to a draw if an rng is given, then with the autoencoder to the mean of x."""
        if rng is None:
            mean = self.scale.invert(self.prior.decode(latent, name, fields=fields))
            return self.autoencoder.decode(mean, self.at, fields=fields)
        drawn = self.scale.invert(self.prior.decode_as_latent(latent, name, rng.at("prior"), fields=fields))
        return self.autoencoder.decode(drawn, self.at, rng.at("autoencoder"), fields=fields)

    def decode_as_latent(self, latent: Value, name: str, rng: Rng, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Decodes a latent with the prior, then with the autoencoder, to draws of both."""
        drawn = self.scale.invert(self.prior.decode_as_latent(latent, name, rng.at("prior"), fields=fields))
        return self.autoencoder.decode_as_latent(drawn, self.at, rng.at("autoencoder"), fields=fields)

    def reconstruct(self, x: Tensor, *, fields: Mapping[str, Tensor] = {}) -> Tensor:
        """Reconstructs `x` with only the autoencoder."""
        return self.autoencoder.decode(self.autoencoder.encode(x, self.at, fields=fields), self.at, fields=fields)

    def _compute_bound(self, batch: Batch, num: int, rng: Rng) -> Tensor:
        """Computes the bound by one draw of the latent and `num` draws of the prior's own bound, `b`."""
        latent, log_weight = self._weigh_scaled(batch.tensor, batch.fields, rng.at("autoencoder"))
        return log_weight + self.prior.bound(replace(batch, x=latent), num, rng.at("prior"))

    def _check_joint(self, autoencoder: Slot[Model], prior: Slot[Model]) -> None:
        """Raises an error if the two Models cannot be trained jointly."""
        if is_frozen(self.autoencoder):
            raise Unfit(
                "autoencoder",
                f"joint training expects an autoencoder that is trained, got {autoencoder.where}, which is frozen",
            )
        if not self.prior.differentiable:
            reason = f"got {prior.where}: {type(self.prior).__name__} has none that could train {autoencoder.where}"
            raise Unfit("prior", f"joint training expects a prior with a differentiable cross entropy, {reason}")
        if self.at not in self.autoencoder.entropic:
            known = ", ".join(self.autoencoder.entropic) or "none"
            reason = f"joint training expects a latent of known entropy, got {self.at!r} of {autoencoder.where}"
            raise Unfit("autoencoder", f"{reason}, which has the entropies of: {known}")

    def _compute_joint_losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Computes the autoencoder's losses with this prior, whose statistics are not updated."""
        alone, inner = replace(batch, cond=Cond()), step.at("autoencoder")
        losses, latent = self.autoencoder.open_losses(player, alone, inner, self.at)
        if latent is None:
            return losses
        scaled = replace(batch, x=self.scale.apply(latent))
        nats = self.prior.cross_entropy(scaled, StepContext(step.rng.at("prior"), step.index)) + self.scale.log_volume
        return {**losses, "cross_entropy": nats.mean() / self.single.numel}

    def _encode_batch(self, batch: Batch, rng: Rng) -> Batch:
        with torch.no_grad():
            return replace(batch, x=self._encode_scaled(batch.x, batch.fields, rng))

    def _weigh_scaled(self, x: Tensor, fields: Mapping[str, Tensor], rng: Rng) -> tuple[Value, Tensor]:
        """Draws the scaled latent, and computes log p(x | latent) - log q(latent | x) for it."""
        if not self.scale.known:
            raise ValueError(
                "Latent has no bound on log p(x) before its prior has been prepared: the scale of the latent is unknown"
            )
        latent, log_weight = self.autoencoder.weigh(x, self.at, rng, fields=fields)
        return self.scale.apply(latent), log_weight - self.scale.log_volume

    def _encode_scaled(self, x: Value, fields: Mapping[str, Tensor], rng: Rng | None) -> Value:
        return self.scale.apply(self.autoencoder.encode(x, self.at, rng, fields=fields))

    def _draw_latent(
        self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng
    ) -> tuple[Value, Mapping[str, Tensor]]:
        """Draws the autoencoder's latent from the prior; also returns the complete fields."""
        self._check_scale()
        fields = self.complete(num, fields, rng)
        latent = self.scale.invert(self.prior.draw_as_latent(num, fields, cond, rng.at("prior")))
        return latent, fields

    def _check_scale(self) -> None:
        if not self.scale.known:
            raise ValueError(
                "Latent cannot be sampled before its prior has been prepared: the scale of the latent is unknown"
            )


def _choose(autoencoder: Slot[Model], prior: Slot[Model], latents: Mapping[str, Event], at: str | None) -> str:
    """Returns the name of the first latent that the prior accepts."""
    if at is not None and at not in latents:
        raise Unfit("at", f"expected one of the latents of {autoencoder.where}: {', '.join(latents)}; got {at!r}")
    refusals = {}
    for name in latents if at is None else (at,):
        reason = prior.accepts(_scale_event(latents[name]))
        if reason is None:
            return name
        refusals[name] = reason
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
    raise Unfit("prior", f"{prior.where} accepts no latent of {autoencoder.where}: {reasons}")


def _scale_event(event: Event) -> Event:
    """Returns the type of a scaled latent, which has no range and unit deviation."""
    levels = tuple(replace(level, range=None) for level in split_levels(make_unit(event)))
    return levels if isinstance(event, tuple) else levels[0]
