r"""The scale of a latent: it gives the latents of any encoder mean 0 and standard deviation 1, for a prior.

    u = (z - mean) / std,   log p(z) = log p(u) - d log std,   one mean and one std per level

Codes have no scale and are left unchanged.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from modkit.types import Event, Value, split_levels

__all__ = ["LatentScale"]


class LatentScale:
    """The mean and standard deviation of each continuous level, stored in the buffers `mean_i` and `std_i` of a module.

    Args:
        owner: The module that the buffers belong to.
        event: Type of the latent.
        scale: 1 / std if the user gives it, with a mean of 0; otherwise None.
        moments: (mean, std) if they are already known; None if they are to be measured.

    Raises:
        ValueError: If `scale` is not positive.

    Examples:
        >>> from modkit import TensorType
        >>> scale = LatentScale(nn.Module(), TensorType((2,)), scale=0.5)
        >>> scale.apply(torch.tensor([[2.0, -4.0]]))
        tensor([[ 1., -2.]])
        >>> float(scale.log_volume) == 2 * float(torch.tensor(2.0).log())
        True
    """

    def __init__(
        self, owner: nn.Module, event: Event, scale: float | None, moments: tuple[float, float] | None = None
    ) -> None:
        if scale is not None and scale <= 0:
            raise ValueError(f"{type(owner).__name__} expects scale > 0, got {scale}")
        known = moments if scale is None else (0.0, 1 / scale)
        self._owner, self._given = owner, known is not None
        self._sizes = {level: type.numel for level, type in enumerate(split_levels(event)) if type.classes is None}
        mean, std = known or (torch.nan, torch.nan)
        for level in self._sizes:
            owner.register_buffer(f"mean_{level}", torch.tensor(mean))
            owner.register_buffer(f"std_{level}", torch.tensor(std))

    @property
    def known(self) -> bool:
        """Whether the scale was given or has been measured, or there is nothing to measure."""
        return self._given or not any(bool(std.isnan()) for _, std in map(self._get_moments, self._sizes))

    def describe(self) -> str:
        """Describes how a latent is scaled, without reading values; empty for codes."""
        if not self._sizes:
            return ""
        return (
            "by moments that are known" if self._given else "to mean 0 and deviation 1, measured before its first turn"
        )

    @property
    def log_volume(self) -> Tensor | float:
        """The sum of log std over the values of the latent: log p(z) = log p(u) - log_volume."""
        return sum(size * self._get_moments(level)[1].log() for level, size in self._sizes.items())

    def apply(self, latent: Value) -> Value:
        """Scales a latent for the prior."""
        return self._map(latent, lambda value, mean, std: (value - mean) / std)

    def invert(self, latent: Value) -> Value:
        """Restores the latent from its scaled form."""
        return self._map(latent, lambda value, mean, std: value * std + mean)

    @torch.no_grad()
    def measure(self, latents: Iterable[Value]) -> None:
        """Measures the moments of each continuous level over batches, by float64 sums about the first batch's mean."""
        sums: dict[int, Tensor] = {}
        origin: dict[int, Tensor] = {}
        for latent in latents:
            for level, value in enumerate(latent if isinstance(latent, tuple) else (latent,)):
                if level in self._sizes:
                    value = value.double()
                    value = value - origin.setdefault(level, value.mean())
                    terms = torch.stack([torch.full_like(value.sum(), value.numel()), value.sum(), (value**2).sum()])
                    sums[level] = sums.get(level, torch.zeros_like(terms)) + terms
        for level, (count, first_moment, second_moment) in sums.items():
            shift = first_moment / count
            mean, std = self._get_moments(level)
            mean.copy_(shift + origin[level])
            std.copy_((second_moment / count - shift**2).clamp_min(1e-12).sqrt())

    def _map(self, latent: Value, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Value:
        """Changes each continuous level, given its mean and standard deviation."""
        levels = enumerate(latent if isinstance(latent, tuple) else (latent,))
        changed = tuple(change(x, *self._get_moments(level)) if level in self._sizes else x for level, x in levels)
        return changed if isinstance(latent, tuple) else changed[0]

    def _get_moments(self, level: int) -> tuple[Tensor, Tensor]:
        return self._owner.get_buffer(f"mean_{level}"), self._owner.get_buffer(f"std_{level}")
