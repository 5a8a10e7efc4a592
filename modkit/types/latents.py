"""Latents: what a bottleneck makes of features, and what an aggregate part is given of a batch.

Shape letters: b batch, g groups of latent variables, d values of a sample"s latents.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from modkit.types.tensor_type import Value

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LatentBatch", "Latents"]


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


class LatentBatch(NamedTuple):
    """What an aggregate part is given: a batch of latents, and what it asks for beside them.

    Latents are flattened: d is the number of values of the decoder's input, over all levels of a hierarchy.

    Args:
        z: Draws of q(z | x), one for each x of the batch, `b d`.
        prior: As many draws of the bottleneck's prior, `b d`, or None.
        mean: Means of q(z | x), a diagonal Gaussian, `b d`, or None.
        std: Standard deviations of q(z | x), `b d`, or None.
        num_samples: Number of training samples, a scalar, 0 before it is known, or None.
    """

    z: Tensor
    prior: Tensor | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    num_samples: Tensor | None = None

    def require(self, name: str) -> Tensor:
        """Returns a member by name.

        Raises:
            ValueError: If it is None.

        Examples:
            >>> import torch
            >>> LatentBatch(torch.zeros(2, 1)).require("z").shape
            torch.Size([2, 1])
        """
        value: Tensor | None = getattr(self, name)
        if value is None:
            raise ValueError(f"expected a LatentBatch with `{name}`, got None; a part names what it needs in `reads`")
        return value
