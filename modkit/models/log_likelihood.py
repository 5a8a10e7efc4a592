"""The log likelihood of an autoencoder, complete, where its likelihood is a distribution of x.

Shape letters: b batch.
"""

from __future__ import annotations

from torch import Tensor

from modkit.kinds import Likelihood, LikelihoodExtras, read_extras
from modkit.types import TensorType

__all__ = ["compute_log_likelihood"]

_ROUNDING = 1e-3  # of the distance between two levels


def compute_log_likelihood(likelihood: Likelihood, out: Tensor, x: Tensor, type: TensorType) -> Tensor:
    """Computes log p(x | out) in nats per sample, `b`, with what `nll` leaves out.

    Args:
        likelihood: The likelihood.
        out: The decoder's output.
        x: The samples.
        type: Their type.

    Raises:
        ValueError: If the likelihood is no distribution of x, or x has values that it gives no probability.

    Examples:
        >>> import torch
        >>> from modkit.losses.likelihoods import MSE
        >>> type = TensorType((2,))
        >>> compute_log_likelihood(MSE(type), torch.zeros(1, 2), torch.zeros(1, 2), type)  # -log 2 pi
        tensor([-1.8379])
    """
    name, extras = likelihood.__class__.__name__, read_extras(likelihood, LikelihoodExtras)
    if extras.constant is None:
        raise ValueError(f"Autoencoder has no bound on log p(x): its likelihood {name} is not a density of x")
    if extras.levels is not None and not _has_levels(x, type, extras.levels):
        raise ValueError(
            f"Autoencoder has no bound on log p(x): its likelihood {name} gives the probability of {extras.levels} "
            f"values of x, evenly spaced over its range, got others; expected such data, or a likelihood that is a "
            f"density"
        )
    return -likelihood.nll(out, x) - extras.constant * type.numel


def _has_levels(x: Tensor, type: TensorType, levels: int) -> bool:
    """Whether all values of x are among `levels` evenly spaced over the range of its type, within rounding."""
    low, high = type.range or (0.0, 1.0)
    index = (x.double() - low) / (high - low) * (levels - 1)
    nearest = index.round().clamp(0, levels - 1)
    return bool((index - nearest).abs().max() < _ROUNDING)
