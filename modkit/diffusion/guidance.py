"""Guidance: how a conditional and an unconditional denoiser are combined into one.

Predictions of x_0 are combined. Since x_0 is affine in eps, and in v, with coefficients that depend on the time alone,
this is the same as combining predictions of eps. Clipping is left to the sampler, which clips the combination.

Shape letters: b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from torch import Tensor

from modkit.kinds import Conditioner, Denoise, Sides
from modkit.types import Cond, Denoised

__all__ = ["ClassifierFree", "ConditionSides", "NoGuidance", "make_conditions"]


def make_conditions(conditioner: Conditioner, fields: Mapping[str, Tensor], num: int, cond: Cond) -> dict[str, Cond]:
    """Makes the conditions of the two sides that guidance combines.

    Args:
        conditioner: Fields to conditions.
        fields: The fields that it reads, `num` rows each.
        num: Number of samples.
        cond: Conditions from an enclosing Model, which both denoisers receive.

    Returns:
        The conditions by side: those of `cond`, and those of `null`, which keep maps only.
    """
    given = conditioner(fields, None)
    null = replace(conditioner.null(num), concat=given.concat)
    return {"cond": given.merge(cond), "null": null.merge(cond)}


class ConditionSides:
    """The sides of one denoiser, which differ in its conditions.

    Sides that are asked for together are evaluated in one batch, unless their conditions differ in shape.

    Args:
        denoise: Predicts x_0 from x_t, `b ...`, at one time under conditions of `b` rows.
        conds: The conditions of each side.

    Examples:
        >>> import torch
        >>> sides = {"cond": Cond(vector=torch.ones(2, 1)), "null": Cond(vector=torch.zeros(2, 1))}
        >>> asked = ConditionSides(lambda x_t, t, cond: Denoised(x_t + cond.vector), sides)
        >>> [side.x_0.tolist() for side in asked(torch.zeros(2, 1), torch.tensor(0.5), "cond", "null")]
        [[[1.0], [1.0]], [[0.0], [0.0]]]
    """

    def __init__(self, denoise: Callable[[Tensor, Tensor, Cond], Denoised], conds: Mapping[str, Cond]) -> None:
        self._denoise = denoise
        self._conds = conds
        self._joined: dict[tuple[str, ...], Cond | None] = {}

    def __call__(self, x_t: Tensor, t: Tensor, *names: str) -> tuple[Denoised, ...]:
        """Predicts x_0 on each of the sides, shape of `x_t`."""
        cond = self._join(names) if len(names) > 1 else None
        if cond is None:
            return tuple(self._denoise(x_t, t, self._conds[name]) for name in names)
        x_0, v = self._denoise(x_t.repeat(len(names), *[1] * (x_t.ndim - 1)), t, cond)
        vs = (None,) * len(names) if v is None else v.chunk(len(names))
        return tuple(map(Denoised, x_0.chunk(len(names)), vs))

    def _join(self, names: tuple[str, ...]) -> Cond | None:
        """Joins the conditions of sides to those of one batch; None if they differ in shape."""
        if names not in self._joined:
            self._joined[names] = Cond.join([self._conds[name] for name in names])
        return self._joined[names]


class NoGuidance:
    """Uses the conditional denoiser alone; the unconditional one is never called.

    Examples:
        >>> import torch
        >>> guided = NoGuidance()(lambda x_t, t, *names: tuple(Denoised(x_t) for _ in names))
        >>> guided(torch.ones(1, 1), torch.tensor(0.5)).x_0
        tensor([[1.]])
    """

    def __call__(self, sides: Sides) -> Denoise:
        """Returns the conditional denoiser."""
        return lambda x_t, t: sides(x_t, t, "cond")[0]


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
        >>> scales = {"cond": 1.0, "null": 0.5}
        >>> guided = ClassifierFree(scale=3.0)(lambda x_t, t, *names: tuple(Denoised(scales[n] * x_t) for n in names))
        >>> guided(torch.ones(1, 1), torch.tensor(0.5)).x_0
        tensor([[2.]])
    """

    def __init__(self, *, scale: float = 2.0) -> None:
        self.scale = scale

    def __call__(self, sides: Sides) -> Denoise:
        """Returns the guided denoiser, which asks for both sides together."""
        if self.scale == 1:
            return NoGuidance()(sides)

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            cond, null = sides(x_t, t, "cond", "null")
            return Denoised(null.x_0 + self.scale * (cond.x_0 - null.x_0), cond.v)

        return denoise
