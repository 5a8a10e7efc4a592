"""Guidance: how a conditional and an unconditional denoiser are combined into one.

Predictions of x_0 are combined. Since x_0 is affine in eps, and in v, with coefficients that depend on the time alone,
this is the same as combining predictions of eps. Clipping is left to the sampler, which clips the combination.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from modkit.kinds import Conditioner, Denoise
from modkit.types import Cond, Denoised

__all__ = ["ClassifierFree", "NoGuidance", "make_conditions"]


def make_conditions(conditioner: Conditioner, fields: Mapping[str, Tensor], num: int, cond: Cond) -> tuple[Cond, Cond]:
    """Makes the conditions of the two denoisers that guidance combines.

    Args:
        conditioner: Fields to conditions.
        fields: The fields that it reads, `num` rows each.
        num: Number of samples.
        cond: Conditions from an enclosing Model, which both denoisers receive.

    Returns:
        The conditions of the conditional denoiser, and those of the unconditional one, which keep maps only.
    """
    given = conditioner(fields, None)
    null = replace(conditioner.null(num), concat=given.concat)
    return given.merge(cond), null.merge(cond)


class NoGuidance:
    """Uses the conditional denoiser alone; the unconditional one is never called.

    Examples:
        >>> import torch
        >>> guided = NoGuidance()(lambda x_t, t: Denoised(x_t), lambda x_t, t: Denoised(0 * x_t))
        >>> guided(torch.ones(1, 1), torch.tensor(0.5)).x_0
        tensor([[1.]])
    """

    def __call__(self, denoise_cond: Denoise, denoise_null: Denoise) -> Denoise:
        """Returns the conditional denoiser."""
        return denoise_cond


class ClassifierFree:
    """Extrapolates from the unconditional to the conditional prediction: `eps = eps_u + s (eps_c - eps_u)`.

    A learned variance is taken from the conditional denoiser.

    References:
        Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), eq. 6 with s = 1 + w,
        https://arxiv.org/abs/2207.12598

    Args:
        scale: The s above: 0 is unconditional; at 1 the unconditional denoiser is not called.

    Examples:
        >>> import torch
        >>> guided = ClassifierFree(scale=3.0)(lambda x_t, t: Denoised(x_t), lambda x_t, t: Denoised(0.5 * x_t))
        >>> guided(torch.ones(1, 1), torch.tensor(0.5)).x_0
        tensor([[2.]])
    """

    def __init__(self, *, scale: float = 2.0) -> None:
        self.scale = scale

    def __call__(self, denoise_cond: Denoise, denoise_null: Denoise) -> Denoise:
        """Returns the guided denoiser, which calls both, the conditional one first."""
        if self.scale == 1:
            return denoise_cond

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            cond = denoise_cond(x_t, t)
            null = denoise_null(x_t, t)
            return Denoised(null.x_0 + self.scale * (cond.x_0 - null.x_0), cond.v)

        return denoise
