"""What a sampler costs a step, the network left out, beside diffusers' schedulers, on 4 x 4 x 32 x 32.

    python -m tests.benchmarks.samplers [--rounds N] [--steps N]

Both start from a network's output that is at hand (its guess of the noise), and turns alternate in one process.
`sampler` is the sampler's step from x_0; `whole` adds what a model does around its network (its input scaled, x_0 from
its output), which is what diffusers' step and `scale_model_input` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from modkit.diffusion.coefficients import GridCoefficients
from modkit.diffusion.parametrizations import Eps
from modkit.diffusion.schedules import Linear
from modkit.rng import Rng
from modkit.samplers import DDIM, Ancestral, DPMSolverPlusPlus, Euler, Heun, UniPC, sample
from modkit.types import Denoised, TensorType
from tests.benchmarks.turns import parse, take_turns

PAIRS: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "ddim": (DDIM, "DDIMScheduler", {"clip_sample": False}),
    "ancestral": (Ancestral, "DDPMScheduler", {"clip_sample": False}),
    "euler": (Euler, "EulerDiscreteScheduler", {}),
    "heun": (Heun, "HeunDiscreteScheduler", {}),
    "dpm-solver++": (DPMSolverPlusPlus, "DPMSolverMultistepScheduler", {}),
    "3M": (partial(DPMSolverPlusPlus, order=3), "DPMSolverMultistepScheduler", {"solver_order": 3}),
    "unipc": (UniPC, "UniPCMultistepScheduler", {}),
}
"""By name, our sampler, and the peer's name in diffusers, which takes seconds to import, with its settings."""


def run_diffusers(scheduler: Any, out: Tensor, x: Tensor) -> None:
    """A run of diffusers' scheduler."""
    for t in scheduler.timesteps:
        scheduler.scale_model_input(x, t)
        x = scheduler.step(out, t, x).prev_sample


def measure(name: str, *, rounds: int = 20, steps: int = 50) -> dict[str, float]:
    """Microseconds a step of the fastest of some rounds, after one that warms up."""
    import diffusers

    ours, peer, settings = PAIRS[name]
    theirs = partial(getattr(diffusers, peer), **settings)
    schedule = Linear()
    sampler = ours(schedule, TensorType((4, 32, 32)), steps=steps)
    parametrization = Eps(schedule)
    x, out = torch.randn(2, 4, 4, 32, 32).unbind()
    x_0 = Denoised(out)

    def compute(t: Tensor) -> dict[str, Tensor]:
        return parametrization.coefficients(t, schedule.scales(t))

    def run_whole() -> None:  # as `Diffusion.draw` does
        times = sampler.times()
        grid = GridCoefficients(compute, times[:-1])

        def denoise(x_t: Tensor, t: Tensor) -> Denoised:
            coefficients = grid.at(t)
            parametrization.inputs(x_t, coefficients)
            return parametrization.denoised(out, x_t, coefficients)

        sample(sampler, denoise, x, times=times, rng=Rng(0))

    peers = [theirs(beta_start=1e-4, beta_end=2e-2, beta_schedule="linear") for _ in range(rounds + 1)]
    for peer in peers:
        peer.set_timesteps(steps)
    fresh = iter(peers)
    runs = {
        "sampler": lambda: sample(sampler, lambda x_t, t: x_0, x, rng=Rng(0)),
        "whole": run_whole,
        "diffusers": lambda: run_diffusers(next(fresh), out, x),
    }
    return {name: min(times) / steps * 1e6 for name, times in take_turns(runs, rounds).items()}


def bare(rounds: int) -> float:
    """Microseconds of the arithmetic that no sampler can do without: a x + b x_0."""
    x, x_0 = torch.randn(2, 4, 4, 32, 32).unbind()
    times = take_turns({"bare": lambda: [0.9 * x + 0.1 * x_0 for _ in range(100)]}, rounds)
    return min(times["bare"]) * 1e4


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table."""
    given = parse(__doc__, arguments, rounds=(20, "runs timed of each, after a first"), steps=(50, "steps in a run"))
    torch.set_num_threads(1)
    print(f"microseconds a step; bare arithmetic {bare(given.rounds):.0f}")
    print(f"{'':14}{'sampler':>9}{'whole':>9}{'diffusers':>11}{'sampler/diffusers':>19}{'whole/diffusers':>17}")
    for name in PAIRS:
        row = measure(name, rounds=given.rounds, steps=given.steps)
        ratios = f"{row['sampler'] / row['diffusers']:19.2f}{row['whole'] / row['diffusers']:17.2f}"
        print(f"{name:14}{row['sampler']:9.0f}{row['whole']:9.0f}{row['diffusers']:11.0f}{ratios}", flush=True)


if __name__ == "__main__":
    main()
