from functools import partial

import pytest
import torch

from modkit.diffusion.schedules import EDM, Linear
from modkit.kinds import SamplerExtras, Unfit, read_extras
from modkit.rng import Rng
from modkit.samplers import DDIM, DPMSolverPlusPlus, Restart
from modkit.types import TensorType
from tests.mixture import ring
from tests.refusals import refusals
from tests.samplers.loop import Counter, denoiser, sample

F64 = torch.float64
X = TensorType((2,), std=1.0)
EPS = Rng(0).normal("start", torch.empty(200, 2, dtype=F64))


class Plain:
    """A third party's sampler, with what the kind requires alone: Euler's method on four levels."""

    def __init__(self, schedule, x):
        self.schedule = schedule

    def times(self):
        return self.schedule.time(torch.tensor([80.0, 5.0, 1.0, 0.3, 0.0], dtype=F64))

    def start(self, eps, t):
        return 80.0 * eps

    def step(self, denoise, x_t, t, s, state, rng):
        level, lower = (self.schedule.scales(one)[1] for one in (t, s))
        return x_t + (lower - level) / level * (x_t - denoise(x_t, t).x_0), (state or 0) + 1


class Ordered(Plain):
    """One whose steps are weighted by those before."""

    ordered = True


def test_the_interval_is_repeated_from_fresh_noise():
    schedule, denoise = EDM(), denoiser(EDM())
    restart = Restart(schedule, X, sampler=Plain, low=0.2, high=3.0, repeats=2)
    counter = Counter(denoise)
    got = sample(restart, counter, EPS, Rng(1))
    levels = [float(schedule.scales(torch.tensor(t, dtype=F64))[1]) for t in counter.times]
    assert levels == pytest.approx([80, 5, 1, 5, 1, 5, 1, 0.3])

    def step(x, level, lower):
        return x + (lower - level) / level * (x - denoise(x, schedule.time(torch.tensor(level, dtype=F64))).x_0)

    x = step(step(step(80.0 * EPS, 80.0, 5.0), 5.0, 1.0), 1.0, 0.3)
    for index in range(2):
        eps = Rng(1).at("sampler", 2).at("restart", index).normal("eps", x)
        x = step(step(x + (5.0**2 - 0.3**2) ** 0.5 * eps, 5.0, 1.0), 1.0, 0.3)
    torch.testing.assert_close(got, step(x, 0.3, 0.0), rtol=1e-10, atol=1e-10)


def test_intervals_that_end_together_draw_noise_of_their_own():
    inner = partial(Restart, sampler=Plain, low=0.2, high=3.0)
    outer = Restart(EDM(), X, sampler=inner, low=0.2, high=10.0)
    drawn = []

    class Source(Rng):
        def _derive(self, key, first):
            return Source(source=super()._derive(key, first))

        def normal(self, name, like):
            drawn.append(super().normal(name, like))
            return drawn[-1]

    sample(outer, denoiser(EDM()), EPS, Source(source=Rng(1)))
    assert len(drawn) == 3 and len({float(one.sum()) for one in drawn}) == 3


@pytest.mark.parametrize("inner", [DDIM, DPMSolverPlusPlus, partial(DPMSolverPlusPlus, order=3, eta=1.0)])
def test_without_repeats_it_is_the_sampler(inner):
    restart = Restart(Linear(), X, sampler=partial(inner, steps=12), repeats=0)
    expected = sample(inner(Linear(), X, steps=12), denoiser(Linear()), EPS, Rng(2))
    assert torch.equal(sample(restart, denoiser(Linear()), EPS, Rng(2)), expected)
    assert read_extras(restart, SamplerExtras).deterministic == restart.sampler.deterministic
    assert not read_extras(Restart(Linear(), X, repeats=1), SamplerExtras).deterministic


def test_nothing_goes_back_in_a_sampler_of_ordered_steps():
    unrepeated = partial(Restart, sampler=Ordered, low=0.2, high=3.0, repeats=0)
    assert read_extras(unrepeated(EDM(), X), SamplerExtras).ordered
    assert not read_extras(Restart(EDM(), X, sampler=Plain, low=0.2, high=3.0), SamplerExtras).ordered
    for sampler, got in ((Ordered, "Ordered"), (unrepeated, "Restart")):
        with pytest.raises(
            Unfit, match=f"begin at any of its times, got {got}, whose steps begin at the first"
        ) as raised:
            Restart(EDM(), X, sampler=sampler, low=0.2, high=3.0)
        assert raised.value.slot == "sampler"


def test_restarts_contract_the_errors_made_before_them():
    """The paper's finding: of noise of a third of its deviation the solver makes other shares of the components."""
    mixture, schedule = ring(3, 1.0, 0.2), EDM()
    denoise = mixture.denoiser(schedule)
    wrong = 0.3 * Rng(5).normal("start", torch.empty(2000, 2, dtype=F64))
    solver = partial(DDIM, steps=20)
    alone = sample(solver(schedule, X), denoise, wrong)
    restarted = sample(Restart(schedule, X, sampler=solver, low=0.05, high=5.0, repeats=3), denoise, wrong, Rng(6))
    gaps = [(mixture.responsibilities(x).mean(0) - mixture.weights).abs().max() for x in (alone, restarted)]
    assert gaps[0] > 0.25 and gaps[1] < 0.04  # three standard errors


test_errors = refusals(
    (lambda: Restart(EDM(), X, low=2.0, high=1.0), "Restart expects 0 <= low < high, got 2 and 1"),
    (lambda: Restart(EDM(), X, repeats=-1), "Restart expects repeats of at least 0, got -1"),
    (
        lambda: Restart(EDM(), X, sampler=Plain, low=1.2, high=4.0),
        r"Restart expects a grid with two times or more from 4 to 1.2, got noise levels \[80.0, 5.0, 1.0, 0.3, 0.0\]",
    ),
)
