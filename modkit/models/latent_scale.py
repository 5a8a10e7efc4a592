r"""The scale of a latent: what a prior sees is of mean 0 and standard deviation 1, whatever the encoder emits.

    u = (z - mean) / std,   log p(z) = log p(u) - d log std,   one mean and one std a level

Codes have no scale, and pass as they are.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from modkit.types import Event, Value, split_levels

__all__ = ["LatentScale"]


class LatentScale:
    """Mean and standard deviation of each continuous level, kept in buffers `mean_i` and `std_i` of a module.

    Args:
        owner: The module that keeps the buffers.
        event: Type of the latent.
        scale: 1 / std as the user gives it, the mean then being 0; None: `moments`.
        moments: (mean, std) where they are known from before; None: to be measured.

    Raises:
        ValueError: If `scale` is not positive.
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
        """Whether it was given or has been measured, or there is nothing to measure."""
        return self._given or not any(bool(std.isnan()) for _, std in map(self._moments, self._sizes))

    @property
    def log_volume(self) -> Tensor | float:
        """Sum of log std over the latent's dimensions: log p(u) less this is log p(z)."""
        return sum(size * self._moments(level)[1].log() for level, size in self._sizes.items())

    def scaled(self, latent: Value) -> Value:
        """The latent as a prior sees it."""
        if isinstance(latent, tuple):
            return tuple(self._scaled(value, level) for level, value in enumerate(latent))
        return self._scaled(latent, 0)

    def restored(self, latent: Value) -> Value:
        """The latent of what a prior sees."""
        if isinstance(latent, tuple):
            return tuple(self._restored(value, level) for level, value in enumerate(latent))
        return self._restored(latent, 0)

    @torch.no_grad()
    def measure(self, latents: Iterable[Value]) -> None:
        """Takes the moments of each continuous level over batches, by float64 sums about the first mean."""
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
            mean, std = self._moments(level)
            mean.copy_(shift + origin[level])
            std.copy_((second_moment / count - shift**2).clamp_min(1e-12).sqrt())

    def _scaled(self, latent: Tensor, level: int) -> Tensor:
        if level not in self._sizes:
            return latent
        mean, std = self._moments(level)
        return (latent - mean) / std

    def _restored(self, latent: Tensor, level: int) -> Tensor:
        if level not in self._sizes:
            return latent
        mean, std = self._moments(level)
        return latent * std + mean

    def _moments(self, level: int) -> tuple[Tensor, Tensor]:
        return self._owner.get_buffer(f"mean_{level}"), self._owner.get_buffer(f"std_{level}")
