"""The evidence at a batch, q(z | h) and p(x | z), as an autoencoder's objective draws from it.

Shape letters: b batch, k draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from modkit.diffusion.gaussian import compute_log_normal
from modkit.kinds import Draw, Objective, ObjectiveExtras, Step, Unfit, read_extras
from modkit.models.given import call_given
from modkit.models.observation import Observation
from modkit.models.posterior import Posterior, get_last
from modkit.types import Cond, Latents, Value, split_levels

__all__ = ["BatchEvidence", "check_weighed"]


@dataclass(frozen=True)
class BatchEvidence:
    """The evidence at a batch of x.

    Args:
        q: The posterior.
        p: The decoder and the likelihood.
        h: The encoder's features.
        x: The batch, `b ...`.
        cond: The conditions.
        step: The step.
        compare: Computes the distance of x from what the decoder makes, `b`, by the name of its term.
    """

    q: Posterior
    p: Observation
    h: Value
    x: Tensor
    cond: Cond
    step: Step
    compare: Callable[[Tensor], Mapping[str, Tensor]]

    def draw(self) -> Draw:
        """Draws the latents by the bottleneck."""
        return self.decode(self.q.bottleneck(self.h, self.step))

    def decode(self, latents: Latents) -> Draw:
        """Decodes latents that were drawn."""
        z, kl = get_last(latents.values), latents.kl
        out = call_given(self.p.decoder, z, self.cond)
        return Draw(z, out, latents.losses, self.compare(out), kl if kl is None or kl.ndim == 2 else kl[:, None])

    def weigh(self, num: int, *, hold: bool = False) -> Draw:
        """Draws the first latent `num` times for each sample, as rows of one batch, and weighs it."""

        def repeat(value: Tensor) -> Tensor:
            return value.repeat_interleave(num, 0)

        name = next(iter(self.q.bottleneck.latents))
        h = tuple(map(repeat, self.h)) if isinstance(self.h, tuple) else repeat(self.h)
        latent, log_q = self.q.draw(name, h, self.step.rng.repeat(num))
        if hold and isinstance(latent, Tensor):
            mean, std = (moment.detach() for moment in self.q.compute_moments(name, h))
            log_q = compute_log_normal((latent - mean) / std) - std.log().flatten(1).sum(1)
        z = self.q.bottleneck.to_z(name, latent)
        out = call_given(self.p.decoder, z, self.cond.map(repeat))
        log_weights = self.q.compute_log_prior(name, latent) - log_q - self.p.likelihood.nll(out, repeat(self.x))
        first = tuple(level[::num] for level in z) if isinstance(z, tuple) else z[::num]
        return Draw(first, out[::num], latent=latent, log_weights=log_weights.view(-1, num))


def check_weighed(objective: Objective, q: Posterior, source: str, replacing: str | None, others: object) -> None:
    """Checks that an objective that weighs draws is given what it needs, and nothing that disturbs it.

    Args:
        objective: The objective.
        q: The posterior.
        source: Where the bottleneck was declared, for messages.
        replacing: The judge that compares in place of `nll`, if there is one.
        others: The parts whose losses reach the draws, if there are any.

    Raises:
        Unfit: If the bottleneck has no densities, its draws pass no gradients on or, where their density is held, its
            posterior is no diagonal Gaussian; or if a judge compares in place of `nll`.
        ValueError: If there are others where the density of the draws is held.
    """
    extras, own = read_extras(objective, ObjectiveExtras), q.extras
    if not extras.weighs:
        return
    name, event = next(iter(q.bottleneck.latents.items()))
    codes = any(level.classes is not None for level in split_levels(event))
    for lacks, expected, received in (
        (own.posterior is None or own.log_prior is None, "with densities of its latent, as `gaussian` has", "has none"),
        (codes, "whose draws pass gradients on", f"has codes as its first latent, {name!r}"),
        (
            extras.holds and own.posterior_moments is None,
            "whose posterior is a diagonal Gaussian, as `gaussian` without a flow has",
            "has another",
        ),
    ):
        if lacks:
            raise Unfit("bottleneck", f"weighed draws need a bottleneck {expected}, got {source}, which {received}")
    if replacing:
        raise Unfit(f"judges.{replacing}", "weighed draws need `nll`, which this judge replaces")
    if extras.holds and others:
        raise ValueError(
            "Autoencoder expects no regularizers or judges with a doubly reparametrized "
            "gradient, which scales the gradients of all losses that reach a draw, got some"
        )
