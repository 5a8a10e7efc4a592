"""Figures of samplers: how far they end from the exact flow of a mixture, and which times they ask for."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from examples.mended.figure import Single, Value
from examples.mended.mixture import Ring, draw_noise, measure_rmse, run
from modkit import use
from modkit.diffusion.schedules import EDM, Cosine, Flow, Linear
from modkit.kinds import Denoise, Sampler
from modkit.models import Diffusion
from modkit.samplers import DDIM, DPMSolverPlusPlus, Euler, Heun
from modkit.types import Denoised, TensorType

__all__ = [
    "amplify_error",
    "ask_below_the_table",
    "choose_clipping",
    "follow_from_bfloat16",
    "follow_in_18_steps",
    "follow_in_2_steps",
    "follow_the_line",
]

_X = TensorType((2,))


def amplify_error() -> Value:
    """What a change of 1 of the network's first output moves its second input by.

    Its input is scaled to unit variance. The composition names a schedule and a sampler, as the README's spec does.
    """
    model: Any = Diffusion(_X, network="mlp", schedule="cosine", sampler="ddim")

    def read_second_input(first: float) -> Tensor:
        seen: list[Tensor] = []

        def replace_output(module: object, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            seen.append(inputs[0])
            return torch.full_like(out, first if len(seen) == 1 else 0.0)

        hook = model.network.register_forward_hook(replace_output)
        model.sample(1, seed=0)
        hook.remove()
        return seen[1]

    return float((read_second_input(1.0) - read_second_input(0.0)).abs().max())


def follow_in_18_steps() -> Value:
    """Heun and Euler on a table's schedule, each against 600 steps of its own."""
    schedule, denoise = Cosine(), Ring(5, 0.65, 0.15).make_denoise(Cosine())
    return [_compare(denoise, *(make(schedule, _X, steps=steps) for steps in (18, 600))) for make in (Heun, Euler)]


def follow_in_2_steps() -> Value:
    """Two of EDM's levels, of which the lowest was the second."""
    schedule, denoise = EDM(), Ring(5, 0.65, 0.15).make_denoise(EDM())
    return _compare(denoise, *(Heun(schedule, _X, steps=steps) for steps in (2, 400)))


def follow_the_line() -> Value:
    """2M on `flow`, at the times that the schedule implies; only the code after has `Flow.implies`."""
    schedule, denoise = Flow(), Ring(5, 2.0, 0.3).make_denoise(Flow())
    implied = dict(getattr(Flow, "implies", {"sampler": {}})["sampler"])
    implied.pop("use", None)
    few = DPMSolverPlusPlus(schedule, _X, steps=8, **implied)
    return _compare(denoise, few, Heun(schedule, _X, steps=500))


def follow_from_bfloat16() -> Value:
    """DDIM from noise in bfloat16, against the same in float64."""
    denoise, eps = Ring(3, 0.65, 0.1).make_denoise(Cosine()), draw_noise(2000).bfloat16()
    found: list[Single] = []
    for steps in (50, 1000):
        sampler = DDIM(Cosine(), _X, steps=steps)
        found.append(measure_rmse(run(sampler, denoise, eps), run(sampler, denoise, eps.double())))
    return found


def ask_below_the_table() -> Value:
    """The lowest index of a table of 1000 that the network is asked for, where EDM's lowest level is given."""
    asked = list[int]()

    def denoise(x_t: Tensor, t: Tensor) -> Denoised:
        asked.append(round(float(t) * 1000) - 1)
        return Denoised(torch.zeros_like(x_t))

    heun = use("heun", steps=18, sigma_min=0.002)  # the words of every version
    run(Diffusion(_X, network="mlp", schedule="linear", sampler=heun).sampler, denoise, draw_noise(1))
    return min(asked)


def choose_clipping() -> Value:
    """What a prediction of 7 becomes where the type ends at 1 and clipping is turned off; `clip` is new."""
    sampler = _require_keyword(DDIM, "clip")(Linear(), TensorType((2,), (-1, 1)), steps=5, clip=False)
    return float(run(sampler, lambda x_t, t: Denoised(torch.full_like(x_t, 7.0)), draw_noise(1)).max())


def _compare(denoise: Denoise, few: Sampler, many: Sampler) -> float:
    return measure_rmse(*(run(sampler, denoise, draw_noise()) for sampler in (few, many)))


def _require_keyword(make: Callable[..., Sampler], name: str) -> Callable[..., Sampler]:
    """A factory that takes a keyword.

    Raises:
        ValueError: If it does not.
    """
    if name not in inspect.signature(make).parameters:
        raise ValueError(f"the sampler has no parameter {name}")
    return make
