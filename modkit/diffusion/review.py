r"""Review of a denoiser before training: what it learns beside what its sampler asks of it.

**Levels.** Training draws times, and so noise levels sigma_t / alpha_t, here in units of the data's deviation; the
sampler asks for those of its grid. Below 1 x_t is mostly data, above 1 mostly noise, and a network has to learn both.
The sampler's share of levels on a side is therefore at most 20 times that of training. It is at most 2.1 times in the
published pairings, 9 times with the most one-sided of the logit-normal times that Esser et al. (2024) compare, and 27
to 47 times with uniform times on EDM's schedule, of which .6 % are below 1. Between .25 and 10, where neither the data
nor the noise is negligible, some draw in ten thousand must also lie within a factor exp(.25) of each level that the
sampler asks for: a model of few steps is trained only at these. Outside of this range a grid may go further than
training, as EDM's does: it starts 4.6 deviations of ln sigma above the mean of its draws.

**Amplification.** In a step from t to s < t an error of x_0 enters x_s with the factor alpha_s - sigma_s alpha_t /
sigma_t (DDIM's, and to first order any sampler's). An error of the network of unit size thus grows, relative to the
deviation of x_s, to

    (alpha_s - sigma_s alpha_t / sigma_t) |d x_0 / d out| / sqrt(alpha_s^2 + sigma_s^2)

unless the sampler clips x_0 (`SamplerExtras.bounds`). It is at most 1 where the network predicts v, and large where it
predicts eps and little signal is left: 631 in the first of 50 steps on the cosine table.

**Drift.** Beyond the levels that 99 % of draws stay below, a network errs in the same direction in every step. In units
of x_t / alpha_t these errors add up to the sum of (alpha_s - sigma_s alpha_t / sigma_t) / alpha_s |d x_0 / d out| over
the steps from there, here relative to the deviation of what follows. Where the network predicts eps this is the way
from the first level to the last of them: 16 on EDM's grid, where a minute's training has an FD of 2.9, and 1.3 if
the grid begins at an eighth of its level; it is .3 where the network predicts v or EDM's target.

**Weight.** The output of a network that predicts nothing is wrong by 1, but by no more than a deviation of the data in
x_0, and its loss is the weight of that. The likelihood weighs an error of eps by half the range of log SNR, 10 to 20,
and one of v or EDM's target by less; but one of x_0 by SNR, which is 31,000 on average on log-linear levels. Such a
network would have to copy its input to a thousandth: its FD is 20 where that of v is 1.6. In joint training an
autoencoder learns by the prior's variational bound, which has the likelihood's weight, whatever that of the prior's own
loss. For v, and for EDM's target where latents have unit deviation, an output of zeros means the prior N(0, I), which
gives a latent a cross entropy of ln(2 pi e) / 2 = 1.42 nats a value. That of `flow` on its schedule gives it 5.6, and a
gradient ten times as large, as a prior with a tenth of the variance does.

Shape letters: n draws or times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from modkit.diffusion.gaussian import broadcast
from modkit.diffusion.schedules import get_std
from modkit.diffusion.variational import weigh_errors
from modkit.kinds import (
    Fact,
    Finding,
    Note,
    Parametrization,
    Sampler,
    SamplerExtras,
    Schedule,
    Times,
    read_extras,
)
from modkit.rng import Rng
from modkit.types import TensorType

__all__ = [
    "Coverage",
    "Growth",
    "draw_times",
    "find_drift",
    "find_growth",
    "find_rarest",
    "review_cross_entropy",
    "review_drift",
    "review_growth",
    "review_levels",
    "review_scale",
    "review_weight",
]

_DRAWS = 2**15
_MOST_SIDE = 20  # times the share of training
_NARROW, _WIDE = 0.25, 10.0  # deviations of the data
_NEAR = 0.25  # in ln sigma
_LEAST_NEAR = 1e-4  # share of draws
_MOST_GROWTH = 10.0
_MOST_WEIGHT = 1000.0  # mean over draws
_NATS = math.log(2 * math.pi * math.e) / 2  # entropy of a normal value, in units of its deviation
_MOST_TIMES = 2.0
_STRATA = 2**10  # draws of the bound's times
_SELDOM = 0.99  # of draws stay below
_MOST_SCALE = 4.0  # of a network's input, or its inverse
_PROBES = 16  # times at which a network's input is computed


class Coverage(NamedTuple):
    """The share of training's draws that lie near a noise level, which is in units of the data's deviation."""

    level: float
    share: float


class Growth(NamedTuple):
    """The factor by which an error of the network grows in the step from t to s."""

    factor: float
    t: float
    s: float


def draw_times(times: Times) -> Tensor:
    """Draws as many times as a review looks at, `n`, always the same."""
    return times(_DRAWS, Rng("review"))


def find_rarest(drawn: Tensor, asked: Tensor) -> Coverage | None:
    """Finds the level that training covers least, among those asked for between .25 and 10 deviations.

    Args:
        drawn: Levels drawn in training, `n`, in units of the data's deviation.
        asked: Levels that a sampler asks for, `n`.

    Returns:
        The level and its coverage, or None if the sampler asks for no level in the range.

    Examples:
        >>> even = torch.logspace(-1, 1, 10001, dtype=torch.float64)
        >>> print(f"{find_rarest(even, torch.tensor([1.0], dtype=torch.float64)).share:.2f}")  # .5 of ln 100
        0.11
    """
    asked = asked[(asked >= _NARROW) & (asked <= _WIDE)]
    if not len(asked):
        return None
    logs = drawn.log().sort().values
    ends = [torch.searchsorted(logs, asked.log() + side * _NEAR, right=side > 0) for side in (-1, 1)]
    shares = (ends[1] - ends[0]).double() / len(drawn)
    index = int(shares.argmin())
    return Coverage(float(asked[index]), float(shares[index]))


@torch.no_grad()
def find_growth(schedule: Schedule, parametrization: Parametrization, times: Tensor) -> Growth | None:
    """Finds the step in which an error of the network grows most; None for a parametrization without values.

    Args:
        schedule: The schedule.
        parametrization: What the network predicts.
        times: The times of a grid, `n`, descending, the last 0.

    Examples:
        >>> from modkit.diffusion.parametrizations import Eps, V
        >>> from modkit.diffusion.schedules import Cosine
        >>> schedule, times = Cosine(), torch.tensor([1.0, 0.98, 0.0], dtype=torch.float64)
        >>> [round(find_growth(schedule, part(schedule), times).factor) for part in (Eps, V)]
        [631, 1]
    """
    entered = _compute_errors(schedule, parametrization, times)
    if entered is None:
        return None
    alpha, sigma = (one.cpu()[1:] for one in schedule.scales(times))
    factors = entered / torch.sqrt(alpha**2 + sigma**2)
    index = int(factors.argmax())
    return Growth(float(factors[index]), float(times[index]), float(times[index + 1]))


@torch.no_grad()
def find_drift(
    schedule: Schedule, parametrization: Parametrization, times: Tensor, most: float, deviation: float = 1.0
) -> float | None:
    """Computes how far errors of one direction drift in the steps from noise levels above `most`.

    Args:
        schedule: The schedule.
        parametrization: What the network predicts.
        times: The times of a grid, `n`, descending, the last 0.
        most: The level sigma_t / alpha_t beyond which training seldom is.
        deviation: The data's deviation.

    Returns:
        The drift of x_t / alpha_t for errors of unit size, in deviations at the level `most`; None for a
        parametrization without values.

    Examples:
        >>> from modkit.diffusion.parametrizations import Eps, V
        >>> from modkit.diffusion.schedules import EDM
        >>> schedule, times = EDM(), torch.tensor([1.0, 0.5, 0.125, 0.0], dtype=torch.float64)  # levels 80, 40, 10, 0
        >>> [round(find_drift(schedule, part(schedule), times, 10.0), 2) for part in (Eps, V)]  # 70 / sqrt(101)
        [6.97, 0.12]
    """
    entered = _compute_errors(schedule, parametrization, times)
    if entered is None:
        return None
    alpha, _ = schedule.scales(times[1:])
    drift = entered / alpha.cpu()
    return float(drift[_find_levels(schedule, times[:-1]).cpu() > most].sum()) / math.hypot(deviation, most)


def review_levels(
    x: TensorType, schedule: Schedule, drawn: Tensor, sampler: Sampler, path: str, overrides: tuple[str, ...]
) -> Iterator[Note]:
    """Reviews the noise levels that training visits beside those that the sampler asks for.

    Nothing is known of parts without values (a schedule that is learned, on the meta device).

    Args:
        x: Type of the data.
        schedule: The schedule.
        drawn: Times drawn in training (`draw_times`), `n`.
        sampler: The sampler.
        path: Path of the part that is to blame where a level is not trained.
        overrides: Overrides that may mend it.
    """
    asked = sampler.times()[:-1]
    if drawn.is_meta or asked.is_meta:
        return
    deviation = get_std(x)
    drawn, asked = (_find_levels(schedule, t) / deviation for t in (drawn.cpu(), asked.cpu()))
    ends = torch.tensor([0.01, 0.5, 0.99], dtype=torch.float64, device="cpu")
    quantiles = ", ".join(f"{value:.3g}" for value in drawn.quantile(ends).tolist())
    unit = f"{deviation:.3g}, assumed" if x.std is None else f"{deviation:.3g}"
    grid = f"{len(asked)} from {asked.max():.3g} to {asked.min():.3g}"
    text = f"training visits {quantiles} (1 %, 50 % and 99 % of draws), the sampler {grid}"
    yield Fact("", f"noise levels in deviations of the data ({unit}): {text}")
    if message := _explain_gap(drawn, asked):
        yield Finding(path, message, overrides, refused=True)


def review_scale(
    x: TensorType, schedule: Schedule, parametrization: Parametrization, sampler: Sampler
) -> Iterator[Note]:
    """Reviews the deviation of the network's input along the sampler's grid, for data of the assumed deviation."""
    times = sampler.times()[:-1]
    t = times[:: -(-len(times) // _PROBES)]
    alpha, sigma = schedule.scales(t)
    deviation, ones = torch.sqrt((alpha * get_std(x)) ** 2 + sigma**2), torch.ones((len(t), *x.shape))
    x_t = broadcast(deviation, ones) * ones
    x_in, _ = parametrization.inputs(x_t, parametrization.coefficients(t, (alpha, sigma)))
    if x_in.is_meta:
        return
    low, high = (float(end) for end in x_in.double().flatten(1).square().mean(1).sqrt().aminmax())
    yield Fact("", f"the network's input has a deviation of {low:.2g} to {high:.2g}")
    if low < 1 / _MOST_SCALE or high > _MOST_SCALE:
        message = (
            f"the network's input has a deviation of {low:.2g} to {high:.2g} for data of deviation "
            f"{get_std(x):.3g}; expected {1 / _MOST_SCALE:g} to {_MOST_SCALE:g}"
        )
        mends = ("parametrization.sigma_data=null", f"parametrization.sigma_data={get_std(x):.3g}")
        yield Finding("parametrization", message, mends)


def review_growth(
    x: TensorType, schedule: Schedule, parametrization: Parametrization, sampler: Sampler
) -> Iterator[Note]:
    """Reviews the growth of an error of the network along the sampler's grid."""
    growth = find_growth(schedule, parametrization, sampler.times())
    if growth is None:
        return
    clipped = _is_clipped(x, sampler)
    step = f"in the step from t = {growth.t:.3g} to {growth.s:.3g}"
    tail = ", before x_0 is clipped" if clipped else ""
    factor = f"{growth.factor:,.0f}" if growth.factor > 100 else f"{growth.factor:.3g}"
    yield Fact("", f"an error of the network is multiplied by at most {factor}, {step}{tail}")
    if growth.factor > _MOST_GROWTH and not clipped:
        message = (
            f"an error of the network grows {factor}-fold {step}, and x_0 is not clipped; expected at most "
            f"{_MOST_GROWTH:g}-fold"
        )
        yield Finding("parametrization", message, ("parametrization=v", "sampler.clip=true"), refused=True)


def review_drift(
    x: TensorType, schedule: Schedule, parametrization: Parametrization, drawn: Tensor, sampler: Sampler
) -> Iterator[Note]:
    """Reviews how far errors drift at levels that training seldom visits, if no single step lets them grow as far."""
    growth = find_growth(schedule, parametrization, sampler.times())
    if drawn.is_meta or growth is None or growth.factor > _MOST_GROWTH or _is_clipped(x, sampler):
        return
    most = float(_find_levels(schedule, drawn.cpu()).quantile(_SELDOM))
    drift = find_drift(schedule, parametrization, sampler.times(), most, get_std(x))
    if drift is not None and drift > _MOST_GROWTH:
        message = (
            f"errors of one direction drift {drift:.3g}-fold in the sampler's steps from noise levels that "
            f"{_SELDOM:.0%} of training's draws stay below, and x_0 is not clipped; expected at most "
            f"{_MOST_GROWTH:g}-fold"
        )
        yield Finding("parametrization", message, ("parametrization=v", "parametrization=edm"), refused=True)


def review_weight(x: TensorType, weight: Tensor, error_scale: Tensor) -> Iterator[Note]:
    """Reviews the loss of a network that predicts nothing.

    Args:
        x: Type of the data.
        weight: Weights of the loss, `n`, one a draw.
        error_scale: Squared errors of x_0 for a unit error of the network's output, `n`.
    """
    if weight.is_meta or error_scale.is_meta:
        return
    cost = weight * (get_std(x) ** 2 / error_scale).clamp_max(1)
    yield from _review_cost(cost, "has a loss", ("parametrization=v", "loss_weight=min-snr"))


@torch.no_grad()
def review_cross_entropy(x: TensorType, schedule: Schedule, parametrization: Parametrization) -> Iterator[Note]:
    """Reviews the cross entropy of a network that predicts nothing, by which joint training learns what x is.

    It is compared with that of a normal prior of x's deviation, which is what a network predicts that makes of x_t the
    best of all x_0 that are proportional to it.

    Examples:
        >>> from modkit.diffusion.parametrizations import V, X0
        >>> from modkit.diffusion.schedules import Cosine
        >>> x, schedule = TensorType((2,), std=1.0), Cosine()
        >>> [len([*review_cross_entropy(x, schedule, part(schedule))]) for part in (X0, V)]
        [1, 0]
    """
    if schedule.scales(torch.ones(1, dtype=torch.float64, device="cpu"))[0].is_meta:
        return
    t, weight = weigh_errors(schedule, (torch.arange(_STRATA, dtype=torch.float64, device="cpu") + 0.5) / _STRATA)
    alpha, sigma = schedule.scales(t)
    coefficients = parametrization.coefficients(t, (alpha, sigma))
    scale = parametrization.error_scale(coefficients)
    if scale.is_meta:
        return
    variance = get_std(x) ** 2
    cost, mends = weight.cpu() * scale.cpu().clamp_max(variance), ("parametrization=v", "parametrization=edm")
    if refused := [*_review_cost(cost, "gives joint training a cross entropy", mends)]:
        yield from refused
        return
    one = TensorType((1,))
    zeros, ones = (
        torch.full((len(t), *of.shape), value, dtype=t.dtype, device=t.device)
        for of, value in ((parametrization.out(one), 0.0), (one, 1.0))
    )
    gain = parametrization.denoised(zeros, ones, coefficients).x_0[:, 0]
    error = (1 - gain * alpha) ** 2 * variance + (gain * sigma) ** 2
    least = variance * sigma**2 / (variance * alpha**2 + sigma**2)
    asked = _NATS + float((weight * (error - least)).mean())
    if asked > _MOST_TIMES * _NATS:
        message = (
            f"a network that predicts nothing gives joint training a cross entropy of {asked:.3g} nats a value, and a "
            f"standard normal prior one of {_NATS:.3g}; expected at most {_MOST_TIMES:g} times that, since the "
            "autoencoder learns by it before the prior has learned"
        )
        yield Finding("parametrization", message, mends)


def _review_cost(cost: Tensor, does: str, mends: tuple[str, ...]) -> Iterator[Finding]:
    """Finds a cost of a network that predicts nothing, `n`, one a draw, that is too high on average."""
    if (mean := float(cost.mean())) > _MOST_WEIGHT:
        message = (
            f"a network that predicts nothing {does} of {mean:,.0f} on average, {float(cost.max()):,.0f} at most; "
            f"expected at most {_MOST_WEIGHT:,.0f} on average"
        )
        yield Finding("parametrization", message, mends, refused=True)


def _compute_errors(schedule: Schedule, parametrization: Parametrization, times: Tensor) -> Tensor | None:
    """How much of an error of the network enters x_s in each step of a grid; None without values."""
    steps = times[:-1]
    scale = parametrization.error_scale(parametrization.coefficients(steps, schedule.scales(steps)))
    alpha, sigma = (one.cpu() for one in schedule.scales(times))
    if scale.is_meta or alpha.is_meta:
        return None
    return (alpha[1:] - sigma[1:] * alpha[:-1] / sigma[:-1]).abs() * scale.cpu().sqrt()


def _is_clipped(x: TensorType, sampler: Sampler) -> bool:
    bounds = read_extras(sampler, SamplerExtras).bounds
    return (x.range if bounds == "range" else bounds) is not None


def _explain_gap(drawn: Tensor, asked: Tensor) -> str | None:
    """Explains which levels the sampler asks for and training does not visit, or returns None."""
    for side, there in (("below", torch.Tensor.lt), ("above", torch.Tensor.gt)):
        trained, wanted = (float(there(levels, 1.0).double().mean()) for levels in (drawn, asked))
        if trained < wanted / _MOST_SIDE:
            return (
                f"{trained:.1%} of training's noise levels and {wanted:.0%} of the sampler's are {side} the deviation "
                f"of the data; expected at most {_MOST_SIDE} times the share of training"
            )
    rarest = find_rarest(drawn, asked)
    if rarest is None or rarest.share >= _LEAST_NEAR:
        return None
    return (
        f"the sampler asks for the noise level {rarest.level:.2g} (in deviations of the data); expected one that "
        f"training visits, got {rarest.share:.2%} of its draws within a factor of {math.exp(_NEAR):.2f}"
    )


def _find_levels(schedule: Schedule, t: Tensor) -> Tensor:
    """The noise levels sigma_t / alpha_t, `n`, float64."""
    alpha, sigma = schedule.scales(t)
    return sigma / alpha
