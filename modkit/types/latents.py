"""Latents: what a bottleneck makes of features.

Shape letters: b batch, g groups of latent variables, d values of a sample"s latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from modkit.types.tensor_type import Value

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Latents"]


class Latents(NamedTuple):
    """What a bottleneck returns for features `h`.

    Args:
        values: The latents by name, of the types in its `latents`; the decoder receives the last.
        kl: KL(q(z | x) || p(z)) in nats per sample: `b`, or `b g` with a column for each group of latent variables (a
            channel, a level of a hierarchy), whose sum over groups is the KL; None if the bottleneck has no KL term.
        losses: Further named losses, averaged over elements (codebook loss, commitment loss).
    """

    values: dict[str, Value]
    kl: Tensor | None
    losses: dict[str, Tensor]

    @property
    def total_kl(self) -> Tensor | None:
        """The KL of all groups together, `b`, or None."""
        return self.kl if self.kl is None or self.kl.ndim == 1 else self.kl.sum(1)
