"""Guidance: a conditional and an unconditional denoiser made one.

x_0 is affine in eps and in v with the same coefficients on both sides, so combining predictions of x_0 is combining
predictions of eps; clipping is left to the sampler, after the combination.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from modkit.kinds import Conditioner, Denoise
from modkit.types import Cond, Denoised

__all__ = ["ClassifierFree", "NoGuidance", "sides"]


def sides(conditioner: Conditioner, fields: Mapping[str, Tensor], num: int, cond: Cond) -> tuple[Cond, Cond]:
    """The conditions of the two sides that guidance combines: under the fields, and under none but for maps.

    Args:
        conditioner: Fields to conditions.
        fields: What it reads, `num` rows each.
        num: Number of samples.
        cond: Conditions from an enclosing Model, on both sides.
    """
    given = conditioner(fields, None)
    null = replace(conditioner.null(num), concat=given.concat)
    return given.merge(cond), null.merge(cond)


class NoGuidance:
    """The conditional denoiser as it is; the unconditional one is never called."""

    def __call__(self, denoise_cond: Denoise, denoise_null: Denoise) -> Denoise:
        """The conditional denoiser."""
        return denoise_cond


class ClassifierFree:
    """Moves away from the unconditional prediction: `eps = eps_u + s (eps_c - eps_u)`.

    A learned variance is taken from the conditional side.

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), eq. 6 with s = 1 + w,
        https://arxiv.org/abs/2207.12598

    Args:
        scale: The s above. At 1 the unconditional denoiser is never called; 0 is unconditional.
    """

    def __init__(self, *, scale: float = 2.0) -> None:
        self.scale = scale

    def __call__(self, denoise_cond: Denoise, denoise_null: Denoise) -> Denoise:
        """The guided denoiser; it calls both, the conditional one first."""
        if self.scale == 1:
            return denoise_cond

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            cond = denoise_cond(x_t, t)
            null = denoise_null(x_t, t)
            return Denoised(null.x_0 + self.scale * (cond.x_0 - null.x_0), cond.v)

        return denoise
