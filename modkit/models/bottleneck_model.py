"""BottleneckModel: a Model whose latents a bottleneck makes of what an encoder computes.

Shape letters: b batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping

from torch import Tensor

from modkit.kinds import Bottleneck, Encoder, Slot
from modkit.models.latent_scale import make_unit
from modkit.models.model import Model
from modkit.models.passes import map_batches
from modkit.models.posterior import Posterior
from modkit.models.prior_review import explain_undrawn
from modkit.nn.trained import is_trained
from modkit.rng import Rng
from modkit.types import Batch, CondType, TensorType, Value

__all__ = ["BottleneckModel"]


class BottleneckModel(Model):
    """What `autoencoder` and `decoded` have in common: the encoder and the bottleneck, but not the decoder."""

    encoder: Encoder
    bottleneck: Bottleneck

    def _build_bottleneck(
        self, encoder: Slot[Encoder], bottleneck: Slot[Bottleneck], x: TensorType, cond: CondType
    ) -> None:
        """Builds both parts, and states the latents."""
        self.encoder = encoder(x=x, cond=cond)
        self.bottleneck = bottleneck.name_source(encoder.where)(h=self.encoder.h)
        latents = self.bottleneck.latents
        self.latents = {name: make_unit(event) for name, event in zip(latents, latents.values())}
        self.moments, self.start_noise = self._q.extras.moments, self._q.extras.start_noise

    @abstractmethod
    def _encode_batch(self, batch: Batch) -> Value:
        """Computes the features of a batch."""

    def _prepare_bottleneck(self, batches: Iterable[Batch], rng: Rng) -> None:
        """Prepares the bottleneck from encoded data, unless it was trained before."""
        if (prepare := self._q.extras.prepare) and not is_trained(self.bottleneck):
            prepare(map_batches(batches, lambda batch, first: self._encode_batch(batch)), rng)

    def explain_undrawn(self) -> str | None:
        """Returns the reason of a bottleneck without a prior."""
        return explain_undrawn(self.bottleneck)

    @property
    def entropic(self) -> tuple[str, ...]:
        """The bottleneck's first latent, if its entropy is known or can be estimated."""
        return self._q.entropic

    def condense(self, x: Tensor, name: str = "", *, fields: Mapping[str, Tensor] = {}) -> tuple[Tensor, ...]:
        """Computes the parameters of q(z | x), or codes; for a bottleneck that condenses nothing, its features."""
        return self._q.condense(name, self._encode_batch(Batch(x, fields)))

    def encode(self, x: Value, name: str, rng: Rng | None = None, *, fields: Mapping[str, Tensor] = {}) -> Value:
        """Encodes `x` to the latent `name`: a draw of q(z | x) if an rng is given, otherwise the mean."""
        if isinstance(x, Tensor):
            return self._q.encode(name, self._encode_batch(Batch(x, fields)), rng)
        return self._q.expand(name, x, rng, single=not isinstance(self.encoder.h, tuple))

    @property
    def diagonal(self) -> tuple[str, ...]:
        """The bottleneck's first latent, if the moments of its posterior are known."""
        return self._q.diagonal

    def encode_moments(self, x: Tensor, name: str, *, fields: Mapping[str, Tensor] = {}) -> tuple[Tensor, Tensor]:
        """Encodes `x` to the moments of the bottleneck's posterior."""
        if name not in self.diagonal:
            return super().encode_moments(x, name)
        return self._q.compute_moments(name, self._encode_batch(Batch(x, fields)))

    @property
    def _q(self) -> Posterior:
        return Posterior(self.bottleneck, self)
