r"""The scale of a latent: it gives the latents of any encoder mean 0 and standard deviation 1, for a prior.

    u = (z - mean) / std,   log p(z) = log p(u) - sum log std,   one mean and one std per level, or per channel of each

Codes have no scale and are left unchanged.

A measured scale is due to be measured again once the encoder is to be trained on. Until then it stays in force, since a
prior may rely on it. Its stored std is then negative: checkpoints have that as well, so that a training resumed in
between measures again as one that was not interrupted.

Shape letters: b batch, c channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from modkit.data.moments import RunningMoments
from modkit.types import Event, PositiveFloat, Value, checked, split_levels

__all__ = ["LatentScale", "make_unit"]


@checked
class LatentScale:
    """The mean and standard deviation of each continuous level, stored in the buffers `mean_i` and `std_i` of a module.

    Read it by `apply`, `invert` and `get_moments`: what is stored also says whether it is due to be measured again.

    Args:
        owner: The module that the buffers belong to.
        event: Type of the latent.
        scale: 1 / std if the user gives it, with a mean of 0; otherwise None.
        moments: (mean, std) if they are already known; None if they are to be measured.
        by_channel: Whether each channel, the first axis of a level, has moments of its own; the buffers are then
            `c 1 1 ...`.

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
        self,
        owner: nn.Module,
        event: Event,
        scale: PositiveFloat | None,
        moments: tuple[float, float] | None = None,
        *,
        by_channel: bool = False,
    ) -> None:
        known = moments if scale is None else (0.0, 1 / scale)
        self._owner, self._given, self._by_channel = owner, known is not None, by_channel
        shapes = {level: type.shape for level, type in enumerate(split_levels(event)) if type.classes is None}
        self._sizes = {level: math.prod(shape) for level, shape in shapes.items()}
        mean, std = known or (torch.nan, torch.nan)
        for level, shape in shapes.items():
            size = (*shape[:1], *(1 for _ in shape[1:])) if by_channel else ()
            owner.register_buffer(f"mean_{level}", torch.full(size, mean))
            owner.register_buffer(f"std_{level}", torch.full(size, std))

    @property
    def known(self) -> bool:
        """Whether the scale was given or has been measured, or there is nothing to measure."""
        return self._given or not any(bool(std.isnan().any()) for std in map(self._get_std, self._sizes))

    @property
    def due(self) -> bool:
        """Whether the scale has to be measured: it never was, or the encoder has been trained on since."""
        return not self._given and not all(bool((std > 0).all()) for std in map(self._get_std, self._sizes))

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
        stds = {level: self.get_moments(level)[1] for level in self._sizes}
        return sum(size // stds[level].numel() * stds[level].log().sum() for level, size in self._sizes.items())

    def apply(self, latent: Value) -> Value:
        """Scales a latent for the prior."""
        return self._map(latent, lambda value, mean, std: (value - mean) / std)

    def invert(self, latent: Value) -> Value:
        """Restores the latent from its scaled form."""
        return self._map(latent, lambda value, mean, std: value * std + mean)

    @torch.no_grad()
    def measure(self, latents: Iterable[Value]) -> None:
        """Measures the moments of each continuous level over batches."""
        found: dict[int, RunningMoments] = {}
        for latent in latents:
            for level, value in enumerate(latent if isinstance(latent, tuple) else (latent,)):
                if level in self._sizes:
                    found.setdefault(level, RunningMoments(by_channel=self._by_channel)).add(value)
        for level, moments in found.items():
            mean, std = self._owner.get_buffer(f"mean_{level}"), self._get_std(level)
            measured, deviation = moments.compute()
            mean.copy_(measured.view_as(mean))
            std.copy_(deviation.clamp_min(1e-6).view_as(std))

    @torch.no_grad()
    def mark_due(self) -> None:
        """Makes a measured scale due to be measured again; until then it stays in force."""
        if not self._given:
            for std in map(self._get_std, self._sizes):
                std.copy_(-std.abs())

    def get_moments(self, level: int) -> tuple[Tensor, Tensor]:
        """Returns the mean and the deviation of a level that is not codes."""
        return self._owner.get_buffer(f"mean_{level}"), self._get_std(level).abs()

    def _map(self, latent: Value, change: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Value:
        """Changes each continuous level, given its mean and standard deviation."""
        levels = enumerate(latent if isinstance(latent, tuple) else (latent,))
        changed = tuple(change(x, *self.get_moments(level)) if level in self._sizes else x for level, x in levels)
        return changed if isinstance(latent, tuple) else changed[0]

    def _get_std(self, level: int) -> Tensor:
        """Returns the deviation as it is stored, negative where it is due to be measured again."""
        return self._owner.get_buffer(f"std_{level}")


def make_unit(event: Event) -> Event:
    """Returns the type of a latent with the deviation to which it is scaled for a prior, 1; codes have none.

    Examples:
        >>> from modkit import TensorType
        >>> make_unit(TensorType((4, 8, 8))).std
        1.0
    """
    levels = tuple(replace(level, std=1.0) if level.classes is None else level for level in split_levels(event))
    return levels if isinstance(event, tuple) else levels[0]
