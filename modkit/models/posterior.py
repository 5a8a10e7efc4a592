"""q(latent | h) of an autoencoder, by the optional members of its bottleneck, which are read here.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from modkit.kinds import Bottleneck, BottleneckExtras, Step, read_extras
from modkit.models.evaluating import evaluate_mode
from modkit.models.step import StepContext
from modkit.rng import Rng
from modkit.types import Event, Latents, Value, split_levels

if TYPE_CHECKING:
    from modkit.models.model import Model

__all__ = ["Posterior", "get_last"]

T = TypeVar("T")


class Posterior:
    """q(latent | h), by a bottleneck. `.extras` are its optional members.

    A method raises ValueError if the bottleneck lacks the member that it needs.

    Args:
        bottleneck: The bottleneck.
        owner: The Model that has it.
    """

    def __init__(self, bottleneck: Bottleneck, owner: Model) -> None:
        self.owner, self._name = owner, type(owner).__name__
        self.bottleneck, self.extras = bottleneck, read_extras(bottleneck, BottleneckExtras)

    @property
    def entropic(self) -> tuple[str, ...]:
        """The first latent, if the entropy of its posterior is known, or can be estimated by its density."""
        latents = self.bottleneck.latents
        continuous = all(level.classes is None for level in split_levels(next(iter(latents.values()))))
        return self._list_first(self.extras.posterior_entropy or (self.extras.posterior if continuous else None))

    @property
    def diagonal(self) -> tuple[str, ...]:
        """The first latent, if the moments of its posterior are known."""
        return self._list_first(self.extras.posterior_moments)

    def draw(self, name: str, h: Value, rng: Rng) -> tuple[Value, Tensor]:
        """Draws the latent, and computes log q(latent | h), `b`."""
        if lack := self.explain_lack(prior=False, name=name):
            raise ValueError(lack)
        return self._require(self.extras.posterior)(name, h, rng)

    def compute_log_prior(self, name: str, latent: Value) -> Tensor:
        """Computes the log density of the latent under the bottleneck's own prior, `b`."""
        return self._require(self.extras.log_prior)(name, latent)

    def open(self, name: str, h: Value, step: Step) -> tuple[Latents, Tensor]:
        """Draws the latents without a KL, and computes E_q[log q(latent | h)], the negative entropy, `b`.

        It is exact where the bottleneck knows the entropy; otherwise, it is log q of the draw, which is unbiased, as is
        its gradient through the draw and the density. What is drawn by a density has no other losses.
        """
        if name not in self.entropic:
            who = type(self.bottleneck).__name__
            raise ValueError(f"{self._name} has neither entropy nor density of the latent {name!r} of its {who}")
        if self.extras.posterior_entropy:
            return self.bottleneck(h, step), -self.extras.posterior_entropy(name, h)
        latent, log_q = self.draw(name, h, step.rng)
        last = list(self.bottleneck.latents)[-1]
        return Latents({name: latent, last: self.bottleneck.to_z(name, latent)}, None, {}), log_q

    def compute_moments(self, name: str, h: Value) -> tuple[Tensor, Tensor]:
        """Computes the means and standard deviations of q(latent | h), of the latent's shape."""
        return self._require(self.extras.posterior_moments)(name, h)

    def condense(self, name: str, h: Value) -> tuple[Tensor, ...]:
        """Computes what the latent depends on, without draws; for a bottleneck that condenses nothing, its features."""
        if self.extras.condense and self.extras.expand:
            return self.extras.condense(name, h)
        return h if isinstance(h, tuple) else (h,)

    def expand(self, name: str, condensed: tuple[Tensor, ...], rng: Rng | None, *, single: bool) -> Value:
        """Computes the latent of what was condensed: a draw if an rng is given, otherwise the mean.

        Args:
            name: The latent's name.
            condensed: What `condense` returned.
            rng: Source of the draw.
            single: Whether the features are one tensor, and not a hierarchy.
        """
        if self.extras.condense and self.extras.expand:
            return self.extras.expand(name, condensed, rng)
        return self.encode(name, condensed[0] if single else condensed, rng)

    def encode(self, name: str, h: Value, rng: Rng | None) -> Value:
        """Computes the latent of features: a draw if an rng is given, otherwise the mean."""
        return self.bottleneck(h, StepContext(rng) if rng else None).values[name]

    def has_kl(self, h: Event) -> bool:
        """Whether the bottleneck gives a KL, which is tried on blank features of the type `h`."""
        blank = tuple(torch.zeros_like(self.owner.allocate(1, level)) for level in split_levels(h))
        with evaluate_mode(self.owner):
            latents = self.bottleneck(blank if isinstance(h, tuple) else blank[0], StepContext(Rng(0)))
        return latents.total_kl is not None

    def explain_lack(self, *, prior: bool, name: str | None = None) -> str | None:
        """Returns why there is no density of a latent, by default the first, or none of the own prior, or None."""
        if self.extras.posterior is None or (prior and self.extras.log_prior is None):
            return self._describe_lack()
        first = next(iter(self.bottleneck.latents))
        if name in (None, first):
            return None
        reason = f"of its bottleneck {type(self.bottleneck).__name__}, {name!r} has no density, only {first!r} has"
        return f"{self._name} has no bound on log p(x): {reason}; expected a prior of that latent, `at: {first}`"

    def _list_first(self, known: object) -> tuple[str, ...]:
        return () if known is None else tuple(self.bottleneck.latents)[:1]

    def _require(self, density: Callable[..., T] | None) -> Callable[..., T]:
        if density is None:
            raise ValueError(self._describe_lack())
        return density

    def _describe_lack(self) -> str:
        return (
            f"{self._name} has no bound on log p(x): its bottleneck {type(self.bottleneck).__name__} has no densities"
        )


def get_last(values: Mapping[str, Value]) -> Value:
    """Returns the last of a bottleneck's latents, the decoder's input."""
    return list(values.values())[-1]
