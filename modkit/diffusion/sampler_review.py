"""Review of a sampler before training: its ends, whose networks it is for, and what its guidance asks for.

**First step.** Samples start as noise without signal, whatever their first level is. Published grids begin at 80 to 160
deviations of the data, the lowest at 14.6; a few steps of the grid `leading` begin lower. Where the data are N(1, .5^2)
and the denoiser is exact, 50 steps of DDIM draw a mean of .989 from 314 deviations, .645 from 2.6 and .474 from 1.6.

**Last step.** It ends at the network's x_0, the mean of the data that its noise leaves possible. From 8 steps on it may
begin at 2 deviations at most; fewer are for networks that are trained to take them. EDM's own 18 levels, the last of
them .004, draw latents of digits at an FD of .41. Even steps in t draw them at 15 where the last step begins at 8.9
deviations (18 steps), at 9.2 from 4.4, 3.2 from 2.2, 1.0 from 1.1, and .58 from .56 (288 steps).

Shape letters: n times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from modkit.diffusion.schedules import get_std
from modkit.kinds import (
    Conditioner,
    ConditionerExtras,
    Coupling,
    CouplingExtras,
    Finding,
    Guidance,
    GuidanceExtras,
    LossWeight,
    LossWeightExtras,
    Note,
    Parametrization,
    Sampler,
    SamplerExtras,
    Schedule,
    read_extras,
)
from modkit.types import Denoised, TensorType

__all__ = [
    "has_variance",
    "list_asked",
    "review_coupling",
    "review_distilled",
    "review_ends",
    "review_guidance",
    "review_variance",
]

_LEAST_FIRST = 3.0  # deviations of the data
_LOW_FIRST = 8.0  # likewise; below it, a warning
_MOST_LAST = 2.0  # likewise
_FEW = 8  # steps below which networks are trained to take long ones
_UNNAMED = ": only a network that lists its layers of self-attention offers it"
_ASKED = 64  # times at which guidance is tried: an interval of noise levels may be short


def list_asked(sampler: Sampler) -> Tensor:
    """The times at which a sampler calls the denoiser, `n`, float64 on the CPU, in descending order.

    Examples:
        >>> from modkit.diffusion.schedules import EDM
        >>> from modkit.samplers import Heun
        >>> sampler = Heun(EDM(), TensorType((2,)), steps=2, churn=0.2)
        >>> [[round(80 * t, 3) for t in times.tolist()] for times in (sampler.times(), list_asked(sampler))]
        [[80.0, 2.515, 0.0], [88.0, 2.767, 2.515]]
    """
    of_its_own = read_extras(sampler, SamplerExtras).list_asked
    return of_its_own() if of_its_own else sampler.times()[:-1]


def has_variance(x: TensorType, schedule: Schedule, parametrization: Parametrization) -> bool:
    """Whether predictions have a learned variance.

    Examples:
        >>> from modkit.diffusion.parametrizations import Eps, EpsLearned
        >>> from modkit.diffusion.schedules import Linear
        >>> [has_variance(TensorType((2,)), Linear(), part(Linear())) for part in (Eps, EpsLearned)]
        [False, True]
    """
    t = torch.ones(1, dtype=torch.float64, device="cpu")
    coefficients = parametrization.coefficients(t, schedule.scales(t))
    out, x_t = (torch.zeros((1, *type.shape)) for type in (parametrization.out(x), x))
    return parametrization.denoised(out, x_t, coefficients).v is not None


def review_ends(x: TensorType, schedule: Schedule, sampler: Sampler) -> Iterator[Note]:
    """Finds samplers that start where signal is left, and those of many steps whose last one ends at a mean."""
    times = sampler.times()
    alpha, sigma = schedule.scales(times[[0, -2]])
    levels = sigma / alpha / get_std(x)
    if levels.is_meta:
        return
    first, last = levels.tolist()
    if first < _LOW_FIRST:
        message = (
            f"samples start as noise without signal, but the first step expects noise of {first:.3g} deviations of the "
            f"data beside it; expected {_LOW_FIRST:g} deviations or more"
        )
        mends = ("sampler.grid=trailing", "schedule.num=1000")
        yield Finding("sampler", message, mends, refused=first < _LEAST_FIRST)
    if len(times) > _FEW and last > _MOST_LAST:
        message = (
            f"the last of {len(times) - 1} steps begins at {last:.3g} deviations of the data, so that samples are "
            f"averages of many data points; expected at most {_MOST_LAST:g} deviations"
        )
        yield Finding("sampler", message, ("sampler.grid=continuous", "sampler.grid=trailing"), refused=True)


def review_distilled(sampler: Sampler) -> Iterator[Note]:
    """Finds samplers for networks that are trained to predict where a path ends, which denoising does not teach."""
    if read_extras(sampler, SamplerExtras).distilled:
        message = (
            f"expected a sampler for networks that are trained to denoise, got {type(sampler).__name__}, which takes "
            "each prediction for the end of a path, where theirs is a mean"
        )
        yield Finding("sampler", message, ("sampler=ddim", "sampler.sampler=heun"), refused=True)


def review_variance(sampler: Sampler, source: object, *, learned: bool) -> Iterator[Note]:
    """Finds samplers whose steps need a learned variance where there is none.

    Args:
        sampler: The sampler.
        source: The part that makes predictions of the network's outputs.
        learned: Whether these have a variance.
    """
    if read_extras(sampler, SamplerExtras).learned_variance and not learned:
        message = (
            f"expected a denoiser that predicts the variance of steps, which {type(sampler).__name__} needs, got "
            f"{type(source).__name__}, which predicts none"
        )
        yield Finding("sampler", message, ("parametrization=eps-learned", "sampler=ancestral"), refused=True)


def review_coupling(coupling: Coupling, loss_weight: LossWeight, sampler: Sampler) -> Iterator[Note]:
    """Finds what noise that training pairs with the data does not suit: the likelihood, and steps that draw noise."""
    if read_extras(coupling, CouplingExtras).independent:
        return
    if read_extras(loss_weight, LossWeightExtras).likelihood:
        yield Finding(
            "coupling",
            f"expected noise independent of the data with the loss weight {type(loss_weight).__name__}, which is no "
            f"bound otherwise, got {type(coupling).__name__}",
            ("coupling=independent", "loss_weight=simple"),
            refused=True,
        )
    if not read_extras(sampler, SamplerExtras).deterministic:
        yield Finding(
            "sampler",
            "expected a sampler that draws no noise in its steps, since training pairs noise with data, "
            f"so that x_t is not normal given x_0; got {type(sampler).__name__} under {type(coupling).__name__}",
            ("sampler.eta=0", "sampler.churn=0", "sampler=ddim", "coupling=independent"),
        )


def review_guidance(
    guidance: Guidance,
    conditioner: Conditioner,
    x: TensorType,
    times: Sequence[float],
    sides: Collection[str] = ("cond", "null"),
) -> Iterator[Note]:
    """Finds guidance that fails, or asks for predictions which the model lacks, or for what training does not teach.

    The last is a prediction without conditions where it never drops them, or one at times at which the guidance has
    none.

    Args:
        guidance: The guidance; it is called with predictions of ones.
        conditioner: The conditioner.
        x: Type of what the denoisers predict.
        times: Times at which the guidance is used.
        sides: Names of the predictions that the model has.
    """
    try:
        asked = _find_asked(guidance, x, times)
    except Exception as error:  # a part of the user's own may fail in any way
        message = f"{type(guidance).__name__} cannot combine predictions: {type(error).__name__}: {error}"
        yield Finding("guidance", message, ("guidance=none",), refused=True)
        return
    if absent := sorted(asked.difference(sides)):
        message = (
            f"expected guidance that combines predictions which the model offers ({', '.join(sides)}), got "
            f"{type(guidance).__name__}, which needs `{'`, `'.join(absent)}`{_UNNAMED if 'perturbed' in absent else ''}"
        )
        yield Finding("guidance", message, ("guidance=none",), refused=True)
    explain = read_extras(guidance, GuidanceExtras).explain_refusal
    if explain and (reason := explain(torch.tensor(times, dtype=torch.float64, device="cpu"))):
        yield Finding("guidance", reason, ("guidance=none",), refused=True)
    dropped = read_extras(conditioner, ConditionerExtras).drop
    if dropped is None or dropped > 0 or "null" not in asked:
        return
    given = conditioner.type
    droppable = any(one is not None for one in (given.vector, given.labels, given.context))
    reason = "never drops its conditions in training" if droppable else "has no conditions that training could drop"
    yield Finding(
        "guidance",
        f"expected a model that is also trained without conditions, which {type(guidance).__name__} asks for; got "
        f"{type(conditioner).__name__}, which {reason}",
        (*(("conditioner.drop=0.1",) if droppable else ()), "guidance=none"),
        refused=True,
    )


def _find_asked(guidance: Guidance, x: TensorType, times: Sequence[float]) -> set[str]:
    """Finds the sides that guidance asks for at some of the times.

    Raises:
        TypeError: If what it returns is no prediction.
    """
    asked: set[str] = set()
    own = guidance.parameters() if isinstance(guidance, nn.Module) else iter(())
    start = torch.zeros((1, *x.shape), device=next((one.device for one in own), None))

    def ask(x_t: Tensor, t: Tensor, *names: str) -> tuple[Denoised, ...]:
        asked.update(names)
        return tuple(Denoised(torch.ones_like(x_t)) for _ in names)

    guided = guidance(ask)
    for t in times[:: -(-len(times) // _ASKED)]:
        made = guided(start, torch.tensor(t, dtype=torch.float64))
        if not isinstance(made, Denoised):
            raise TypeError(f"expected it to return a Denoised, got a {type(made).__name__}")
    return asked
