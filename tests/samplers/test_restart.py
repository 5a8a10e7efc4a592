from functools import partial

import pytest
import torch

from modkit.diffusion.schedules import EDM, Linear
from modkit.kinds import SamplerExtras, Unfit, read_extras
from modkit.rng import Rng
from modkit.samplers import DDIM, DPMSolverPlusPlus, Heun, Restart
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


class Fixed(Plain):
    """One that steps between its own times only."""

    fixed_times = True


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


def space(high, low, num):
    """EDM's levels with rho = 7, written out."""
    ends = high ** (1 / 7), low ** (1 / 7)
    return [(ends[0] + i / (num - 1) * (ends[1] - ends[0])) ** 7 for i in range(num)]


def restart_as_the_authors(denoise, eps, levels, intervals, rng):
    """The loop of the authors' `restart_sampler` without churn, for denoisers of a level; `levels` end at 0.

    An interval is `[number of levels, repeats, low, high]`; its low is one of `levels`. Also counts evaluations.
    """
    calls = 0

    def slope(x, level):
        nonlocal calls
        calls += 1
        return (x - denoise(x, level)) / level

    def step(x, level, lower):
        d = slope(x, level)
        y = x + (lower - level) * d
        return x + (lower - level) * (d + slope(y, lower)) / 2 if lower > 0 else y

    x = levels[0] * eps
    for index, (level, lower) in enumerate(zip(levels, levels[1:])):
        x = step(x, level, lower)
        for num, repeats, low, high in intervals:
            for repeat in range(repeats if lower == low else 0):
                noise = rng.at("sampler", index).at("restart", repeat).normal("eps", x)
                x = x + (high**2 - low**2) ** 0.5 * noise
                again = space(high, low, num)
                for one, next_one in zip(again, again[1:]):
                    x = step(x, one, next_one)
    return x, calls


@pytest.mark.parametrize("low", [0.06, 0.0])
def test_steps_of_its_own_are_those_of_the_authors(low):
    """Their configuration on CIFAR-10, `[3, 2, .06, .30]` around 18 steps, with its 43 evaluations."""
    schedule = EDM(sigma_max=80.0)
    restart = Restart(schedule, X, sampler=Heun, low=low, high=0.3, repeats=2, steps=2)
    interval = schedule.scales(restart.find_interval())[1].tolist()
    assert interval == pytest.approx(space(0.3, low, 3), rel=1e-13, abs=0)
    levels = [*space(80.0, 0.002, 18), 0.0]
    if low:  # the grid's nearest level is moved there
        nearest = min(range(19), key=lambda index: abs(levels[index] - low))
        assert (nearest, round(levels[nearest], 4)) == (14, 0.0599)
        levels[nearest] = low
    assert schedule.scales(restart.times())[1].tolist() == pytest.approx(levels, rel=1e-12, abs=0)
    counter, denoise = Counter(denoiser(schedule)), denoiser(schedule)
    got = sample(restart, counter, EPS, Rng(1))

    def at_level(x, level):
        return denoise(x, schedule.time(torch.tensor(level, dtype=F64))).x_0

    want, calls = restart_as_the_authors(at_level, EPS, levels, [[3, 2, low, 0.3]], Rng(1))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    assert len(counter.times) == calls == (43 if low else 41)
    assert {*counter.times} <= {*restart.list_asked().tolist()}


def test_a_restart_around_another_leaves_its_interval_alone():
    schedule, denoise = EDM(), denoiser(EDM())
    inner = partial(Restart, sampler=Plain, low=0.9, high=3.0, steps=2)
    outer = Restart(schedule, X, sampler=inner, low=0.8, high=2.0, steps=1)
    levels = schedule.scales(outer.times())[1].tolist()
    assert levels == pytest.approx([80, 5, 0.9, 0.8, 0])
    counter = Counter(denoise)
    sample(outer, counter, EPS)
    asked = [float(schedule.scales(torch.tensor(t, dtype=F64))[1]) for t in counter.times]
    assert asked == pytest.approx([80, 5, 3, space(3.0, 0.9, 3)[1], 0.9, 2, 0.8])


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
    (lambda: Restart(EDM(), X, steps=0), "Restart expects steps to be at least 1, got 0"),
    (
        lambda: Restart(EDM(), X, sampler=Fixed, low=0.2, high=3.0, steps=2),
        "expected one that can step between any times, got Fixed, which is bound to its own; leave out `steps`",
    ),
    (
        lambda: Restart(EDM(), X, sampler=Plain, low=0.2, high=100.0, steps=1),
        r"Restart expects an interval between the noise levels 80 and 0, got \[100.0, 0.2\]",
    ),
    (
        lambda: Restart(Linear(), X, low=0.001, high=1.0, steps=1),
        r"Restart expects an interval between the noise levels .* and 0.0100005, got \[1.0, 0.001\]",
    ),
    (
        lambda: Restart(EDM(), X, sampler=partial(DDIM, steps=1), low=0.2, high=1.0, steps=1),
        r"Restart expects a grid with a time that can be moved to 0.2, between .*, got noise levels \[80.0, 0.0\]",
    ),
    (lambda: Restart(EDM(), X, repeats=-1), "Restart expects repeats to be at least 0, got -1"),
    (
        lambda: Restart(EDM(), X, sampler=Plain, low=1.2, high=4.0),
        r"Restart expects a grid with two times or more from 4 to 1.2, got noise levels \[80.0, 5.0, 1.0, 0.3, 0.0\]",
    ),
)
