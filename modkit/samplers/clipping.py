r"""Clipping: what keeps predictions of x_0 near the data while steps are large.

    clamp      x_0 <- min(max(x_0, low), high)
    dynamic    u = (x_0 - m) / h,  m and h the middle and half the width of the range
               x_0 <- m + h min(max(u, -s), s) / s,    s = max(1, the quantile p of |u| over a sample's values)

Dynamic thresholding shrinks a sample whose values leave the range, by guidance mostly, and clamps only the outermost of
them: at most a share 1 - p of a sample's values is at an end of the range, and contrast between the others stays.

Shape letters: b batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from torch import Tensor

from modkit.diffusion.gaussian import broadcast
from modkit.types import TensorType

__all__ = ["Clip", "clip_dynamically", "find_bounds", "make_clipping"]

Clip: TypeAlias = Annotated[
    bool | float | list[float] | Literal["dynamic"],
    "What predictions of x_0 are clipped to: `[low, high]`; true is the range of x, if it has one; false is nothing; a "
    "number p in (0, 1) is dynamic thresholding at this quantile, `dynamic` at 0.995.",
]

_QUANTILE = 0.995


def find_bounds(owner: object, clip: Clip, x: TensorType) -> tuple[float, float] | None:
    """Finds the lowest and the highest value of clipped predictions; None if they are not clipped.

    Raises:
        ValueError: If `clip` is malformed, or dynamic where x has no range. The message names the class of `owner`.
    """
    if isinstance(clip, bool):
        return x.range if clip else None
    name = type(owner).__name__
    if isinstance(clip, list | tuple):
        if len(clip) == 2 and -math.inf < clip[0] < clip[1] < math.inf:
            return clip[0], clip[1]
    elif clip == "dynamic" or (isinstance(clip, int | float) and 0 < clip < 1):
        if x.range is None:
            raise ValueError(f"{name} expects x with a range for the dynamic clip {clip}, got {x}")
        return x.range
    expected = "true, false, [low, high] with low < high, `dynamic` or a quantile in (0, 1)"
    raise ValueError(f"{name} expects clip to be {expected}, got {clip}")


def make_clipping(clip: Clip, bounds: tuple[float, float]) -> Callable[[Tensor], Tensor]:
    """Makes what clips predictions of x_0, `b ...`, to their bounds."""
    low, high = bounds
    if isinstance(clip, bool | list | tuple):
        return lambda x_0: x_0.clamp(low, high)
    quantile = _QUANTILE if isinstance(clip, str) else clip
    return lambda x_0: clip_dynamically(x_0, bounds, quantile)


def clip_dynamically(x_0: Tensor, bounds: tuple[float, float], quantile: float) -> Tensor:
    """Clips each sample at a quantile of its values, and scales it into the range.

    References:
        Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding (Saharia et al., 2022),
        section 2.3, https://arxiv.org/abs/2205.11487

    Args:
        x_0: Predictions, `b ...`; gradients flow through them.
        bounds: The range of x.
        quantile: The p above, of a sample's distances from the middle; between two values it is linear.

    Examples:
        >>> import torch
        >>> x_0 = torch.tensor([[0.5, -1.0, 2.0, -4.0], [0.5, -0.5, 0.5, 1.0]])
        >>> clip_dynamically(x_0, (-1.0, 1.0), 2 / 3)  # the quantile is 2, and less than 1
        tensor([[ 0.2500, -0.5000,  1.0000, -1.0000],
                [ 0.5000, -0.5000,  0.5000,  1.0000]])
    """
    middle, half = (bounds[0] + bounds[1]) / 2, (bounds[1] - bounds[0]) / 2
    u = (x_0 - middle) / half
    sizes = u.abs().flatten(1)
    rank = quantile * (sizes.shape[1] - 1)
    largest = sizes.topk(sizes.shape[1] - math.floor(rank)).values  # torch.quantile takes at most 2^24 values
    below, above = largest[:, -1], largest[:, -2 if largest.shape[1] > 1 else -1]
    s = broadcast(below.lerp(above, rank % 1).clamp_min(1), u)
    return middle + half * u.clamp(-s, s) / s
