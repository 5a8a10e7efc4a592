"""What networks return: a denoiser, a feature extractor, a discriminator.

Shape letters: b batch, c channels, h w spatial, d features, k classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Denoised", "Features", "Judgement"]


class Denoised(NamedTuple):
    """What a denoiser returns.

    Args:
        x_0: The predicted clean sample, shape of `x_t`.
        v: The interpolation weight of a learned variance, in [0, 1] (Improved DDPM, eq. 15), or None.
    """

    x_0: Tensor
    v: Tensor | None = None


class Features(NamedTuple):
    """What a feature extractor returns for images.

    Args:
        vector: Feature vectors, `b d`.
        maps: Feature maps `b c h w`, from shallow to deep; may be empty.
        logits: Class logits, `b k`, if the extractor is a classifier.
    """

    vector: Tensor
    maps: tuple[Tensor, ...] = ()
    logits: Tensor | None = None


class Judgement(NamedTuple):
    """What a discriminator returns for samples, with what it saw in them.

    Args:
        logits: The logits, `b` or `b 1 h w`, higher for real samples.
        maps: Its hidden features `b c ...`, from shallow to deep.
        heads: What its heads computed, by name, `b width`; of a classifier, the logits of classes.
    """

    logits: Tensor
    maps: tuple[Tensor, ...]
    heads: Mapping[str, Tensor] = {}
