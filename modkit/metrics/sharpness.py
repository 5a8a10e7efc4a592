r"""Sharpness: how much fine detail samples have, compared with the data.

    sharpness = mean_i q(fake_i) / mean_i q(real_i),   q(x) = variance of Lx over positions
    (Lx)_hw = x_h-1,w + x_h+1,w + x_h,w-1 + x_h,w+1 - 4 x_hw,   where the stencil fits

q is averaged over channels. A wave of amplitude A and angular frequency w along one axis has q = 2 A^2 (1 - cos w)^2;
white noise of variance s^2 has q = 20 s^2. A sharpness of 1 is that of the data. Below 1, edges are smeared or faint;
above 1, samples have noise or edges that the data do not have. So neither direction is better. Contrast counts: an
average of several possible images is blurred because its strokes are faint.

Shape letters: b batch, c channels, h w spatial, g groups.

References:
    Diatom autofocusing in brightfield microscopy (Pech-Pacheco et al., 2000), the Laplacian's variance as a measure of
    focus, https://doi.org/10.1109/ICPR.2000.903548
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from modkit.metrics.jackknife import assign_groups, compute_variance, standard_error
from modkit.metrics.streaming import Streaming
from modkit.rng import Rng
from modkit.types import Score, TensorType

__all__ = ["Sharpness", "measure_detail"]

_GROUPS = 10

Sums: TypeAlias = dict[str, Tensor]
"""By set, the number of samples of each group and the sum of their q, float64, `g 2`."""


def measure_detail(x: Tensor) -> Tensor:
    """Computes q of each image, `b`, float64.

    Args:
        x: Images, `b c h w`, of at least 3×3, where the stencil fits at more than one position.

    Raises:
        ValueError: If `x` is not a batch of such images.

    Examples:
        A checkerboard of ±1: the Laplacian is ±8.

        >>> x = torch.tensor([1.0, -1.0]).repeat(3)
        >>> measure_detail((x[:, None] * x)[None, None]).item()
        64.0
    """
    if not _has_detail(x.shape[1:]):
        raise ValueError(f"detail expects images of shape (b, c, h, w) of at least 3×4, got {tuple(x.shape)}")
    x = x.double()
    inner = x[..., 1:-1, 1:-1]
    laplacian = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:] - 4 * inner
    return laplacian.flatten(2).var(2, correction=0).mean(1)


class Sharpness(Streaming[Tensor]):
    """The detail of samples relative to that of the data: 1 is as sharp, below 1 is blurred, above 1 is noisy.

    The standard error is the delete-a-group jackknife's over both sets.

    References:
        Wasserstein Auto-Encoders (Tolstikhin et al., 2018), section 4: of samples, https://arxiv.org/abs/1711.01558

    Examples:
        Half the contrast has a quarter of the variance:

        >>> x = Rng(0).normal("x", torch.empty(8, 1, 6, 6))
        >>> round(Sharpness().compute(real=x, fake=x / 2)["sharpness"].value, 6)
        0.25
    """

    needs = ("images",)

    def refuse(self, model: object, x: TensorType) -> str | None:
        """Returns the reason of samples that are not images of at least 3×4."""
        if _has_detail(x.shape):
            return None
        return f"Sharpness expects images of shape (c, h, w) of at least 3×4, got samples of shape {x.shape}"

    def update(self, state: Sums, set: str, values: Mapping[str, Tensor], indices: Tensor) -> Sums:
        """Adds samples to the state: `images`, `b c h w`.

        Raises:
            ValueError: If they are not images of at least 3×4.
        """
        found = measure_detail(values["images"].cpu())
        rows = torch.stack([torch.ones_like(found), found], 1)
        if not len(indices):
            return state
        sums = state.get(set, torch.zeros(_GROUPS, 2, dtype=torch.float64))
        return {**state, set: sums.index_add(0, assign_groups(indices, _GROUPS), rows)}

    def result(self, state: Sums, rng: Rng) -> dict[str, Score]:
        """Computes the score `sharpness`; `rng` is not used.

        Raises:
            ValueError: If a set has no samples, or all real samples are flat.
        """
        totals = {side: self.find(state, side).sum(0) for side in self.sets}
        if not float(totals["real"][1]):
            raise ValueError("Sharpness expects real samples with some detail, got flat ones only")
        real, fake = (_compute_mean(totals[side]) for side in self.sets)
        variances = [
            _estimate_variance(state["fake"], lambda rest: _compute_mean(rest) / real, fake / real),
            _estimate_variance(state["real"], lambda rest: fake / _compute_mean(rest), fake / real),
        ]
        counts = {side: int(totals[side][0]) for side in self.sets}
        return {"sharpness": Score(fake / real, standard_error(*variances), self.better, counts)}


def _has_detail(shape: Sequence[int]) -> bool:
    """Whether samples of a shape are images in which the stencil fits at more than one position."""
    return len(shape) == 3 and min(shape[1:]) >= 3 and max(shape[1:]) >= 4


def _compute_mean(total: Tensor) -> float:
    return float(total[1] / total[0])


def _estimate_variance(groups: Tensor, statistic: Callable[[Tensor], float], value: float) -> float | None:
    """The jackknife variance of a statistic of one set's sums."""
    total = groups.sum(0)
    kept = [group for group in groups if 0 < float(group[0]) < float(total[0])]
    if any(float(group[1]) == float(total[1]) for group in kept):  # all detail is in one group
        return None
    return compute_variance(value, lambda group: statistic(total - kept[group]), (int(group[0]) for group in kept))
