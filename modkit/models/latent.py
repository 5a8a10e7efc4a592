r"""Latent: an autoencoder and any Model as the prior of its latents; itself a Model, and itself an autoencoder.

    x = decode(z),   z ~ prior,   the prior sees (z - mean) / std

Latent diffusion is latent(autoencoder, diffusion) (Rombach et al., 2022), a two-stage VAE is latent(VAE, VAE) (Dai &
Wipf,
2019); nothing here knows which prior it got. The prior is offered the autoencoder's latents in their order and takes
the first that it accepts.

    log p(x) >= E_q[log p(x | z) - log q(z | x) + bound of log prior((z - mean) / std) - sum log std]

In two stages the autoencoder minimises its own loss and the prior is fitted to what came of it. Jointly, in one stage
(Vahdat et al., 2021), the autoencoder's bound is the one above: in place of its KL to a prior of its own it has

    KL(q(z | x) || prior) = E_q[-log prior(z)] - H(q(z | x)),

the `cross_entropy`, through which gradients reach the encoder while the prior stands still, and the `entropy`. The
prior's own loss is as ever, at latents that take no gradient: it would let the encoder make what is easy to predict.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modkit.kinds import Slot, Step, Unfit, Weight, default
from modkit.models.latent_scale import LatentScale
from modkit.models.model import Model, Nested, Pass, Player, prefixed
from modkit.rng import Rng
from modkit.types import Batch, Cond, CondType, Event, TensorType, Value

__all__ = ["Latent"]


class Latent(Model):
    """An autoencoder with a prior over one of its latents.

    The mean and standard deviation of a continuous latent are measured before the prior's first turn, one number a
    level, so that any prior sees unit scale; codes are left as they are. In joint training there is nothing to measure
    yet: the latent is left as it is, and its scale is what the prior's cross entropy makes of it. A prior that is
    standard normal before it has learned anything (a diffusion's `v`, or `edm` with a `sigma_data` of 1) makes a VAE of
    an autoencoder that trains alone: a first stage of that, and slower or rarer turns of the autoencoder in the next,
    keep the latent from running ahead of a prior that has yet to learn where it is.

    Args:
        x: Type of the data.
        cond: Conditions from an enclosing Model, for the prior.
        fields: The data's fields, for the prior.
        autoencoder: A Model that encodes.
        prior: Any Model that accepts one of the autoencoder's latents.
        at: Name of the latent; where not given, the first that the prior accepts.
        scale: Multiplies the latent instead of the measured 1 / std (mean 0 is then taken as given); where not given,
            what the autoencoder knows of the latent's scale stands before what would be measured.
        joint: Train both in one stage (LSGM). In the autoencoder's loss `entropy` and `cross_entropy`, nats a dimension
            of x, take the place of `kl`, and are weighed by its `weights`: a beta-VAE's beta belongs on both.

    Raises:
        ValueError: If the autoencoder does not encode, or no latent suits the prior; of joint training, if the
            autoencoder knows no entropy of the latent or is frozen, or the prior cannot be trained through.

    References:
        High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022), section 3,
        https://arxiv.org/abs/2112.10752
        Score-based Generative Modeling in Latent Space (Vahdat et al., 2021), section 3 and theorem 1,
        https://arxiv.org/abs/2106.05931
    """

    def __init__(
        self,
        x: TensorType,
        cond: CondType,
        fields: dict[str, TensorType],
        *,
        autoencoder: Slot[Model] = default("autoencoder"),
        prior: Slot[Model] = default("diffusion"),
        at: str | None = None,
        scale: float | None = None,
        joint: bool = False,
    ) -> None:
        super().__init__()
        self.event = x
        self.joint = joint
        self.autoencoder = autoencoder(x=x, cond=CondType(), fields=fields)
        if not self.autoencoder.latents:
            raise Unfit(
                "autoencoder", f"a latent model expects one that encodes, got {autoencoder.where}, which has no latents"
            )
        self.at = _choose(autoencoder, prior, self.autoencoder.latents, at)
        event = self.autoencoder.latents[self.at]
        source = f"the latent {self.at!r} of {autoencoder.where}"
        self.prior = prior.fed(source)(x=_unbounded(event), cond=cond, fields=fields)
        self.reads = tuple(dict.fromkeys((*self.autoencoder.reads, *self.prior.reads)))
        self.latents = self.prior.latents
        self.moments = self.prior.moments
        known = self.autoencoder.moments.get(self.at)
        self.scale = LatentScale(self, event, 1.0 if joint and scale is None else scale, known)
        if joint:
            self._check_joint(autoencoder, prior)

    @classmethod
    def accepts(cls, event: Event, **slots: Any) -> str | None:
        """What its autoencoder accepts."""
        autoencoder: Slot[Model] = slots["autoencoder"]
        return autoencoder.accepts(event)

    @property
    def coder(self) -> Model | None:
        """The autoencoder, or what encodes in it."""
        return self.autoencoder.coder

    def players(self) -> tuple[Player, ...]:
        """The autoencoder's players, then the prior's."""
        sides = (("autoencoder", self.autoencoder), ("prior", self.prior))
        return tuple(prefixed(player, name) for name, side in sides for player in side.active_players())

    def stages(self) -> tuple[tuple[str, ...], ...]:
        """The autoencoder's stages, then the prior's, none for a side that is frozen; jointly, one with both."""
        sides = (("autoencoder", self.autoencoder), ("prior", self.prior))
        if self.joint:
            return (tuple(f"{name}/*" for name, side in sides if side.active_players()),)
        return tuple(
            tuple(f"{name}/{pattern}" for pattern in stage)
            for name, side in sides
            if side.active_players()
            for stage in side.stages()
        )

    def weights(self, player: str) -> Mapping[str, Weight]:
        """Weights of the side that plays, by prefixed term."""
        side, _, name = player.partition("/")
        return {f"{side}/{term}": weight for term, weight in getattr(self, side).weights(name).items()}

    def losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The losses of the side that plays; the prior's at latents that take no gradient."""
        side, _, name = player.partition("/")
        if side == "autoencoder" and self.joint:
            losses = self._joint_losses(name, batch, step)
        elif side == "autoencoder":
            losses = self.autoencoder.losses(name, replace(batch, cond=Cond()), Nested(step, side))
        else:
            latent = self._latent(batch, step.rng.at("encode"))
            losses = self.prior.losses(name, latent, Nested(step, side))
        return {f"{side}/{term}": loss for term, loss in losses.items()}

    def update(self, player: str, step: Step) -> None:
        """Passes the call on."""
        side, _, name = player.partition("/")
        getattr(self, side).update(name, Nested(step, side))

    def prepare(self, player: str, batches: Iterable[Batch], rng: Rng) -> None:
        """Passes the call on; before the prior's first, measures the latent's mean and standard deviation."""
        side, _, name = player.partition("/")
        if side == "autoencoder":
            self.autoencoder.prepare(name, batches, rng.at(side))
            return
        if not self.scale.known:
            draw = rng.at("scale")
            self.scale.measure(
                self.autoencoder.encode(batch.tensor, self.at, draw.rows(first)) for first, batch in _numbered(batches)
            )
        self.prior.prepare(name, _Encoded(self, batches, rng.at("encode")), rng.at(side))

    def complete(self, num: int, fields: Mapping[str, Tensor], rng: Rng) -> Mapping[str, Tensor]:
        """The fields that its prior reads, those missing drawn as the prior would."""
        return self.prior.complete(num, fields, rng.at("prior")) if self.prior.reads else fields

    def draw(self, num: int, fields: Mapping[str, Tensor], cond: Cond, rng: Rng) -> Tensor:
        """Decodes draws of the prior."""
        if not self.scale.known:
            raise ValueError(
                "Latent cannot be sampled before its prior has been prepared: the latent's scale is unknown"
            )
        return self._decode(self.prior.draw(num, fields, cond, rng.at("prior")))

    def bound(self, batch: Batch, num: int, rng: Rng, *, grain: float = 0.0) -> Tensor:
        """The bound by one draw of the latent and the prior's own bound, which makes all `num` draws.

        Draws of the latent are not made importance weights of: the prior's bound is itself drawn, and on average the
        exponential of a draw may lie above the prior's density (Jensen).

        Raises:
            ValueError: If the autoencoder has no density of its latent, the prior has no bound, or the prior has not
                been prepared.
        """
        latent, log_weight = self._weighed(batch.tensor, rng.at("autoencoder"))
        return log_weight + self.prior.bound(replace(batch, x=latent), num, rng.at("prior"))

    @property
    def differentiable(self) -> bool:
        """Whether both are, and are trained jointly: the latent's scale has to be known from the start."""
        return self.joint and self.autoencoder.differentiable

    def cross_entropy(self, batch: Batch, step: Step) -> Tensor:
        """By one draw of the latent, with the prior's own."""
        latent, log_weight = self._weighed(batch.tensor, step.rng.at("autoencoder"))
        return self.prior.cross_entropy(replace(batch, x=latent), Nested(step, "prior")) - log_weight

    def weigh(self, x: Tensor, name: str, rng: Rng) -> tuple[Value, Tensor]:
        """A draw through both: the autoencoder's posterior, then the prior's."""
        latent, inner = self._weighed(x, rng.at("autoencoder"))
        if isinstance(latent, tuple):
            raise ValueError(f"{self.prior.__class__.__name__} expects one tensor, got a hierarchy")
        outer_latent, outer = self.prior.weigh(latent, name, rng.at("prior"))
        return outer_latent, inner + outer

    def encode(self, x: Tensor, name: str, rng: Rng | None = None) -> Value:
        """Encodes through both: the autoencoder, then the prior."""
        latent = self._encode(x, rng and rng.at("autoencoder"))
        if isinstance(latent, tuple):
            raise ValueError(f"{self.prior.__class__.__name__} expects one tensor, got a hierarchy")
        return self.prior.encode(latent, name, rng and rng.at("prior"))

    def decode(self, latent: Value, name: str) -> Tensor:
        """Decodes through both: the prior, then the autoencoder."""
        return self._decode(self.prior.decode(latent, name))

    def reconstruct(self, x: Tensor) -> Tensor:
        """`x` through the autoencoder alone."""
        return self.autoencoder.decode(self.autoencoder.encode(x, self.at), self.at)

    def _check_joint(self, autoencoder: Slot[Model], prior: Slot[Model]) -> None:
        """Refuses two that cannot be trained jointly."""
        if self.autoencoder.frozen:
            raise Unfit("autoencoder", f"joint training expects one that trains, got {autoencoder.where}, frozen")
        if not self.prior.differentiable:
            reason = f"got {prior.where}: {type(self.prior).__name__} gives none for {autoencoder.where} to train by"
            raise Unfit("prior", f"joint training expects a prior with a differentiable cross entropy, {reason}")
        if self.at not in self.autoencoder.entropic:
            known = ", ".join(self.autoencoder.entropic) or "none"
            reason = f"joint training expects a latent of known entropy, got {self.at!r} of {autoencoder.where}"
            raise Unfit("autoencoder", f"{reason}, which knows those of: {known}")

    def _joint_losses(self, player: str, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The losses of the autoencoder's side under this prior, whose statistics stand still."""
        alone, inner = replace(batch, cond=Cond()), Nested(step, "autoencoder")
        losses, latent = self.autoencoder.open_losses(player, alone, inner, self.at)
        if latent is None:
            return losses
        seen = replace(batch, x=self.scale.scaled(latent))
        nats = self.prior.cross_entropy(seen, Pass(step.rng.at("prior"), step.index)) + self.scale.log_volume
        return {**losses, "cross_entropy": nats.mean() / self.single.numel}

    def _latent(self, batch: Batch, rng: Rng) -> Batch:
        with torch.no_grad():
            return replace(batch, x=self._encode(batch.tensor, rng))

    def _weighed(self, x: Tensor, rng: Rng) -> tuple[Value, Tensor]:
        """A draw of the scaled latent, and log p(x | latent) - log q(latent | x) of it as it is scaled."""
        if not self.scale.known:
            raise ValueError(
                "Latent has no bound on log p(x) before its prior has been prepared: the latent's scale is unknown"
            )
        latent, log_weight = self.autoencoder.weigh(x, self.at, rng)
        return self.scale.scaled(latent), log_weight - self.scale.log_volume

    def _encode(self, x: Tensor, rng: Rng | None) -> Value:
        return self.scale.scaled(self.autoencoder.encode(x, self.at, rng))

    def _decode(self, latent: Value) -> Tensor:
        return self.autoencoder.decode(self.scale.restored(latent), self.at)


class _Encoded:
    """The scaled latents of a data set, anew at each iteration."""

    def __init__(self, model: Latent, batches: Iterable[Batch], rng: Rng) -> None:
        self._model, self._batches, self._rng, self._passes = model, batches, rng, 0

    def __iter__(self) -> Iterator[Batch]:
        self._passes += 1
        rng = self._rng.at(self._passes)
        return (self._model._latent(batch, rng.rows(first)) for first, batch in _numbered(self._batches))


def _numbered(batches: Iterable[Batch]) -> Iterator[tuple[int, Batch]]:
    first = 0
    for batch in batches:
        yield first, batch
        first += len(batch)


def _choose(autoencoder: Slot[Model], prior: Slot[Model], latents: Mapping[str, Event], at: str | None) -> str:
    """The name of the first latent that the prior accepts."""
    if at is not None and at not in latents:
        raise Unfit("at", f"expected one of the latents of {autoencoder.where}: {', '.join(latents)}; got {at!r}")
    refusals = {}
    for name in latents if at is None else (at,):
        reason = prior.accepts(_unbounded(latents[name]))
        if reason is None:
            return name
        refusals[name] = reason
    reasons = "; ".join(f"{name}: {reason}" for name, reason in refusals.items())
    raise Unfit("prior", f"{prior.where} accepts no latent of {autoencoder.where}: {reasons}")


def _unbounded(event: Event) -> Event:
    """The type of a latent once scaled: no range."""
    if isinstance(event, tuple):
        return tuple(replace(level, range=None) for level in event)
    return replace(event, range=None)
