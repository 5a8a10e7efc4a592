"""Each wrapped scheduler against its class, driven by hand as diffusers' documentation does."""

import copy
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch

import modkit
from modkit import Rng, Spec, TensorType, use
from modkit.diffusion.guidance import ClassifierFree
from modkit.diffusion.log_snr import Learned
from modkit.diffusion.parametrizations import X0, Eps, EpsLearned, Flow, V
from modkit.diffusion.schedules import EDM, VP, Cosine, Even, Linear
from modkit.diffusion.schedules import Flow as Line
from modkit.parts.registry import get_registry
from modkit.samplers import Restart
from modkit.specs.overrides import apply
from modkit.types import Denoised

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy

X = TensorType((2, 3))
NUM = 3


@dataclass(frozen=True)
class Case:
    """A wrapped scheduler and the same by hand: `config` and `options` are the class's and its step's by hand."""

    part: str
    params: dict[str, Any]
    evaluations: int
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    predicts: type = Eps
    draws: bool = False


CLASSES = {
    "ddpm": "DDPM", "ddim": "DDIM", "euler": "EulerDiscrete", "euler-ancestral": "EulerAncestralDiscrete",
    "heun": "HeunDiscrete", "lms": "LMSDiscrete", "pndm": "PNDM", "dpm-solver++": "DPMSolverMultistep",
    "unipc": "UniPCMultistep", "flow-euler": "FlowMatchEulerDiscrete",
}  # fmt: skip
FREE, ONE, KARRAS = {"clip_sample": False}, {"set_alpha_to_one": True}, {"use_karras_sigmas": True}
V_TYPE, X0_TYPE = {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}
TRAILING = {"timestep_spacing": "trailing"}
TEN, EVEN = {"steps": 10}, {"steps": 10, "spacing": "linspace"}  # linspace and, of ddim and pndm, leading: the classes'
EVEN_7, LEADING_7 = {"steps": 7, "spacing": "linspace"}, {"steps": 7, "spacing": "leading"}
LARGE, LEARNED = {"variance_type": "fixed_large", **X0_TYPE}, {"variance_type": "learned_range"}
SDE = {"algorithm_type": "sde-dpmsolver++"}
CHAINS = {
    "ddpm": Case("ddpm", TEN, 10, {**TRAILING, **FREE}, draws=True),
    "ddpm linspace": Case(
        "ddpm", EVEN_7 | LARGE, 7, {"timestep_spacing": "linspace", **FREE, **LARGE}, predicts=X0, draws=True
    ),
    "ddpm learned": Case("ddpm", TEN | LEARNED, 10, {**TRAILING, **FREE, **LEARNED}, predicts=EpsLearned, draws=True),
    "ddim": Case("ddim", TEN, 10, {**TRAILING, **FREE}),
    "ddim v": Case("ddim", {**LEADING_7, "eta": 0.7, **V_TYPE}, 7, FREE | V_TYPE, {"eta": 0.7}, V, draws=True),
    "euler": Case("euler", TEN, 10, TRAILING),
    "euler between indices": Case("euler", EVEN, 10),
    "euler between indices v": Case("euler", EVEN | V_TYPE, 10, V_TYPE, predicts=V),
    "euler karras x0": Case("euler", TEN | KARRAS | X0_TYPE, 10, TRAILING | KARRAS | X0_TYPE, predicts=X0),
    "euler leading": Case("euler", LEADING_7, 7, {"timestep_spacing": "leading"}),
    "euler-ancestral": Case("euler-ancestral", TEN, 10, TRAILING, draws=True),
    "euler-ancestral v": Case("euler-ancestral", EVEN_7 | V_TYPE, 7, V_TYPE, predicts=V, draws=True),
    "heun": Case("heun", {"steps": 9}, 17, TRAILING),
    "heun karras": Case("heun", {**EVEN, **KARRAS, "steps": 8}, 15, KARRAS),
    "lms": Case("lms", TEN, 10, TRAILING, {"order": 4}),
    "lms 2": Case("lms", EVEN | {"order": 2}, 10, {}, {"order": 2}),
    "pndm": Case("pndm", TEN, 11, {**TRAILING, "skip_prk_steps": True, **ONE}),
    "pndm prk": Case("pndm", {**LEADING_7, "skip_prk_steps": False}, 16, ONE),
    "dpm-solver++": Case("dpm-solver++", TEN, 10, TRAILING),
    "dpm-solver++ 3": Case("dpm-solver++", {**EVEN, "steps": 16, "order": 3}, 16, {"solver_order": 3}),
    "dpm-solver++ sde": Case("dpm-solver++", TEN | SDE, 10, TRAILING | SDE, draws=True),
    "dpm-solver++ karras": Case("dpm-solver++", TEN | KARRAS, 10, TRAILING | KARRAS),
    "unipc": Case("unipc", TEN, 10, TRAILING),
    "unipc 3 v": Case("unipc", {**EVEN, "order": 3, **V_TYPE}, 10, {"solver_order": 3, **V_TYPE}, predicts=V),
    "unipc karras": Case("unipc", TEN | KARRAS, 10, TRAILING | KARRAS),
}
ON_LINE = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
LINES = {
    "flow-euler": Case("flow-euler", TEN, 10, predicts=Flow),
    "flow-euler 3": Case("flow-euler", {"steps": 7, "shift": 3.0}, 7, {"shift": 3.0}, predicts=Flow),
    "dpm-solver++": Case("dpm-solver++", TEN, 10, ON_LINE, predicts=Flow),
    "unipc": Case("unipc", TEN, 10, ON_LINE, predicts=Flow),
}
SCHEDULES = {"linear": Linear(), "line": Line()}
CASES = {
    **{f"{name} on a table": (case, "linear") for name, case in CHAINS.items()},
    **{f"{name} on a line": (case, "line") for name, case in LINES.items()},
}


def build_sampler(part, schedule, x=X, **params):
    return modkit.find("sampler", f"diffusers/{part}").load()(schedule, x, **params)


class Network:
    """A small random network, or the exact one of Gaussian data; it counts its evaluations."""

    def __init__(self, case, schedule, exact=False):
        self.parametrization = case.predicts(schedule)
        self.schedule, self.exact, self.count = schedule, exact, 0
        draw = Rng(5).normal("weights", torch.empty(4, X.numel, 2 * X.numel))
        self.into, self.out, self.variance, self.slow = draw / X.numel**0.5

    def __call__(self, x_in, time):
        """The prediction from what a network is fed."""
        self.count += 1
        if self.exact:
            return self.of_gaussian(x_in, time)
        time = torch.as_tensor(time, dtype=torch.float32).reshape(-1, 1)
        hidden = torch.tanh(x_in.flatten(1) @ self.into + torch.sin(time / 200 * self.slow[0]))
        out = (hidden @ self.out.T).view_as(x_in)
        if not isinstance(self.parametrization, EpsLearned):
            return out
        return torch.cat([out, torch.tanh(hidden @ self.variance.T).view_as(x_in)], dim=1)

    def of_gaussian(self, x_in, time):
        """What the best of all predicts of N(1, 0.25 I)."""
        line = isinstance(self.schedule, Line)
        t = torch.as_tensor(float(torch.as_tensor(time).flatten()[0]), dtype=torch.float64)
        t = t / 1000 if line else (t + 1) / 1000
        scales = self.schedule.scales(t)
        alpha, sigma = map(float, scales)
        x_0 = 1 + 0.25 * alpha / (0.25 * alpha**2 + sigma**2) * (x_in - alpha)
        to_x_0, to_eps = map(float, self.parametrization.compute_target_scales(*scales))
        return to_x_0 * x_0 + to_eps * (x_in - alpha * x_0) / sigma

    def denoise(self, x_t, t):
        """The denoiser that modkit makes of it."""
        rows = t.expand(len(x_t))
        coefficients = self.parametrization.coefficients(rows, self.schedule.scales(rows))
        return self.parametrization.denoised(self(*self.parametrization.inputs(x_t, coefficients)), x_t, coefficients)


def noise(num=NUM):
    return Rng(1).normal("start", torch.empty(num, *X.shape))


def trajectory(sampler, denoise, eps, first=0, count=lambda: 0):
    """What a sampler's steps give, each with the evaluations made until then."""
    rng = Rng(2).rows(first)
    x, state, found = sampler.start(eps, sampler.times()[0]), None, []
    for index, (t, s) in enumerate(pairwise(sampler.times())):
        x, state = sampler.step(denoise, x, t, s, state, rng.at(index))
        found.append((count(), x))
    return found


def run_by_hand(case, schedule, network, eps, **more):
    """What the class gives after each evaluation, in the scale of what the network is fed."""
    table = {} if isinstance(schedule, Line) else {"trained_betas": schedule.betas.tolist()}
    scheduler = getattr(diffusers, f"{CLASSES[case.part]}Scheduler")(**table, **case.config)
    scheduler.set_timesteps(case.params["steps"])
    return drive(scheduler, network, eps, draws=case.draws, **case.options, **more)


def drive(scheduler, network, eps, *, draws, **options):
    """What a scheduler gives after each evaluation, in the scale of what the network is fed."""
    scaled = getattr(scheduler, "scale_model_input", lambda sample, timestep: sample)
    sample, found = eps * getattr(scheduler, "init_noise_sigma", 1.0), []
    for index, timestep in enumerate(scheduler.timesteps):
        drawn = {"generator": Rng(2).at(index).make_generators(len(eps))} if draws else {}
        out = network(scaled(sample, timestep), timestep)
        sample = scheduler.step(out, timestep, sample, **options, **drawn).prev_sample
        found.append(scaled(sample, timestep))
    return found


def assert_close(got, expected):
    """To 1e-5 of the largest value: float32 rounds x_t / alpha_t, hence what is made of it, by as much at worst."""
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("exact", [False, True], ids=["random", "Gaussian"])
@pytest.mark.parametrize("name", CASES)
def test_the_trajectory_is_the_class_s_driven_by_hand_in_as_many_evaluations(name, exact):
    case, on = CASES[name]
    if exact and case.predicts is EpsLearned:
        pytest.skip("its variance has no closed form to learn")
    schedule = SCHEDULES[on]
    network = Network(case, schedule, exact)
    expected = run_by_hand(case, schedule, network, noise())
    assert network.count == case.evaluations
    network.count = 0
    sampler = build_sampler(case.part, schedule, **case.params)
    got = trajectory(sampler, network.denoise, noise(), count=lambda: network.count)
    assert network.count == case.evaluations and len(got) == case.params["steps"]
    for count, x in got:
        assert_close(x, expected[count - 1])


def run(sampler, denoise, eps, **keywords):
    """What a sampler makes."""
    return trajectory(sampler, denoise, eps, **keywords)[-1][1]


def line_or_table(part):
    return "line" if part == "flow-euler" else "linear"


PARTS = [
    entry.part.name.partition("/")[2]
    for entry in get_registry().list_parts("sampler")
    if "diffusers/" in entry.part.name
]


@pytest.fixture(params=PARTS)
def sampler(request):
    return build_sampler(request.param, SCHEDULES[line_or_table(request.param)], steps=4)


def tanh(x_t, t):
    return Denoised(torch.tanh(x_t))


def test_every_scheduler_of_the_issue_is_a_part():
    assert sorted(PARTS) == sorted({case.part for case in (*CHAINS.values(), *LINES.values())})
    assert len(PARTS) == 10


@pytest.mark.parametrize("part", PARTS)
def test_noise_is_a_function_of_the_row(part):
    params = {"eta": 1.0} if part == "ddim" else {"algorithm_type": "sde-dpmsolver++"} if part == "dpm-solver++" else {}
    made = build_sampler(part, SCHEDULES[line_or_table(part)], steps=4, **params)
    whole = run(made, tanh, noise(5))
    parts = [run(made, tanh, noise(5)[rows], first=rows.start) for rows in (slice(0, 1), slice(1, 3), slice(3, 5))]
    torch.testing.assert_close(torch.cat(parts), whole)
    draws = part in ("ddpm", "euler-ancestral", "ddim", "dpm-solver++")
    assert torch.allclose(run(made, tanh, noise(1).expand(2, -1, -1))[0], run(made, tanh, noise(1))[0])
    twins = run(made, tanh, noise(1).expand(2, -1, -1))
    assert torch.equal(twins[0], twins[1]) != draws


def test_runs_keep_out_of_each_other_s_way(sampler):
    alone, times, rng = run(sampler, tanh, noise()), list(pairwise(sampler.times())), Rng(2)
    other, x, y, state, aside = copy.deepcopy(sampler), sampler.start(noise(), times[0][0]), -noise(), None, None
    for index, (t, s) in enumerate(times):
        x, state = (other if index % 2 else sampler).step(tanh, x, t, s, state, rng.at(index))
        state = copy.deepcopy(state)
        y, aside = sampler.step(tanh, y, t, s, aside, Rng(3).at(index))
    assert torch.equal(x, alone) and torch.equal(run(sampler, tanh, noise()), alone)
    assert not torch.equal(x, y)


def test_its_times_are_kept_to_in_their_order(sampler):
    t, s, r = sampler.times()[:3]
    sampler.times().zero_()
    x, state = sampler.step(tanh, noise(), t, s, None, Rng(0))
    for wrong in ((t, s, state), (t, r, None), *([(s, r, None)] if sampler.ordered else [])):
        with pytest.raises(ValueError, match=r"Scheduler expects its times in order, now \[.*\], got .* and "):
            sampler.step(tanh, x, *wrong, Rng(0))


def test_the_network_is_given_the_scheduler_s_own_timesteps(sampler):
    seen, line = [], isinstance(sampler.schedule, Line)

    def denoise(x_t, t):
        part = (Flow if line else Eps)(sampler.schedule)
        seen.append(float(part.coefficients(t, sampler.schedule.scales(t))["time"]))
        return tanh(x_t, t)

    run(sampler, denoise, noise())
    steps = [999.0, 749.0, 499.0, 249.0]
    expected = [1000.0, 667.0, 334.0, 1.0] if line else steps
    assert list(dict.fromkeys(seen)) == pytest.approx(expected, rel=1e-7)  # the signal that is kept at t = 1, 2^-24


SHORT = Linear(num=40, beta_start=2e-3, beta_end=0.4)


@pytest.mark.parametrize("schedule", [VP(), Even(VP(), 4), SHORT], ids=["VP", "Even", "short"])
@pytest.mark.parametrize("part", [part for part in PARTS if part != "flow-euler"])
def test_whatever_preserves_variance_is_followed_to_the_data(part, schedule):
    x_0 = Rng(4).normal("x_0", torch.empty(1, *X.shape))
    made = build_sampler(part, schedule, steps=4)
    x = run(made, lambda x_t, t: Denoised(x_0.expand_as(x_t)), noise())
    torch.testing.assert_close(x, x_0.expand(NUM, -1, -1), rtol=0, atol=2e-3)  # what float32 makes of betas


@pytest.mark.parametrize("part", [part for part in PARTS if part != "flow-euler"])
def test_a_schedule_is_followed_as_it_is_trained(part):
    schedule = Learned(X, bins=4)
    made = build_sampler(part, schedule, steps=4)
    before = run(made, tanh, noise())
    with torch.no_grad():
        schedule.ends.sub_(1.0)
        schedule.shares[0] += 1.0
    after = run(made, tanh, noise())
    assert torch.equal(after, run(build_sampler(part, schedule, steps=4), tanh, noise()))
    assert not torch.allclose(after, before, rtol=0, atol=1e-3)


def test_learned_variance_asks_for_one():
    made = build_sampler("ddpm", Linear(), steps=4, variance_type="learned_range")
    with pytest.raises(ValueError, match="DDPMScheduler expects a learned variance for learned_range, got a denoiser"):
        run(made, tanh, noise())


@pytest.mark.parametrize(("target", "refused"), [("v", True), ("eps-learned", False)])
def test_a_model_without_the_variance_that_is_asked_for_is_refused_before_training(target, refused):
    asked = spec("ddpm", steps=4, variance_type="learned_range")
    asked, _ = apply(asked, ["model.schedule=linear", f"model.parametrization={target}"])
    with pytest.raises(ValueError, match=r"parametrization=eps-learned") if refused else nullcontext():
        modkit.check(asked)


@pytest.mark.parametrize("name", ["ddpm", "ddim v", "euler", "euler-ancestral", "heun", "dpm-solver++ 3", "unipc 3 v"])
def test_a_run_begins_at_any_step_as_the_class_does_from_an_image(name):
    case, schedule = CHAINS[name], SCHEDULES["linear"]
    network, each = Network(case, schedule), 2 if case.part == "heun" else 1
    scheduler = getattr(diffusers, f"{CLASSES[case.part]}Scheduler")(
        trained_betas=schedule.betas.tolist(), **case.config
    )
    scheduler.set_timesteps(case.params["steps"])
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(4 * each)
    scaled = getattr(scheduler, "scale_model_input", lambda sample, timestep: sample)
    timesteps = scheduler.timesteps[4 * each :]
    sample = noise() / scaled(torch.ones(()), timesteps[0])
    for index, timestep in enumerate(timesteps):
        drawn = {"generator": Rng(2).at(index).make_generators(NUM)} if case.draws else {}
        out = network(scaled(sample, timestep), timestep)
        sample = scheduler.step(out, timestep, sample, **case.options, **drawn).prev_sample
    made, x, state = build_sampler(case.part, schedule, **case.params), noise(), None
    for index, (t, s) in enumerate(pairwise(made.times()[4:])):
        x, state = made.step(network.denoise, x, t, s, state, Rng(2).at(index))
    assert_close(x, sample)


@pytest.mark.parametrize("part", PARTS)
def test_a_restart_goes_back_where_the_scheduler_can(part):
    schedule = SCHEDULES[line_or_table(part)]
    solver = partial(modkit.find("sampler", f"diffusers/{part}").load(), steps=10)
    restart = partial(Restart, schedule, X, sampler=solver, low=0.1, high=3.0)
    if part in ("lms", "pndm"):
        with pytest.raises(ValueError, match="expected one that can begin at any of its times, got Driven, whose"):
            restart()
        restart = partial(restart, repeats=0)
        assert restart().ordered
    else:
        with pytest.raises(ValueError, match="expected one that can step between any times, got Driven, which is"):
            restart(steps=2)
    x = run(restart(), lambda x_t, t: Denoised(torch.full_like(x_t, 2.0)), noise())
    torch.testing.assert_close(x, torch.full_like(x, 2.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "config", "more"),
    [("ddpm", {}, {}), ("ddim", {"timestep_spacing": "trailing"}, {"use_clipped_model_output": True})],
)
def test_predictions_are_clipped_to_the_range_as_the_class_would(name, config, more):
    clipped = {**TRAILING, "clip_sample": True, "clip_sample_range": 0.6}
    case = Case(name, TEN, 10, clipped, draws=name == "ddpm")
    schedule = Linear()
    network = Network(case, schedule)
    expected = run_by_hand(case, schedule, network, noise(), **more)
    made = build_sampler(name, schedule, TensorType(X.shape, range=(-0.6, 0.6)), steps=10)
    free = run(build_sampler(name, schedule, steps=10), network.denoise, noise())
    assert free.abs().max() > 0.7
    assert_close(run(made, network.denoise, noise()), expected[-1])


@pytest.mark.parametrize(
    ("name", "high"),
    [
        ("ddpm on a table", 0.6),
        ("ddpm learned on a table", 0.6),
        ("ddim on a table", 0.6),
        ("ddim v on a table", 0.6),
        ("heun on a table", 0.6),
        ("dpm-solver++ 3 on a table", 1.0),
        ("dpm-solver++ sde on a table", 1.0),
        ("dpm-solver++ on a line", 1.0),
        ("unipc 3 v on a table", 1.0),
        ("unipc on a line", 1.0),
    ],
)
def test_the_scheduler_that_is_exported_clips_as_the_run_does(name, high):
    case, on = CASES[name]
    schedule = SCHEDULES[on]
    network, x = Network(case, schedule), TensorType(X.shape, range=(-high, high))
    network.out *= 3  # most predictions leave the range
    made = build_sampler(case.part, schedule, x, **case.params)
    alone = drive(made.make_scheduler(), network, noise(), draws=case.draws, **made.find_options())[-1]
    driven = run(made, network.denoise, noise())
    if on == "line":  # on which these round timesteps to whole numbers: the run clips at another time, by up to 5e-4
        torch.testing.assert_close(alone, driven, rtol=0, atol=5e-3)
    else:
        assert_close(alone, driven)
    free = run(build_sampler(case.part, schedule, **case.params), network.denoise, noise())
    assert (free - alone).abs().max() > 0.1


@pytest.mark.parametrize(
    ("part", "range", "known"),
    [
        ("ddpm", (-1.0, 1.0), True),
        ("ddpm", (0.0, 1.0), False),
        ("dpm-solver++", (-2.0, 2.0), False),
        ("euler", (-1.0, 1.0), False),
        ("euler", None, True),
    ],
)
def test_which_schedulers_clip_by_themselves(part, range, known):
    made = build_sampler(part, Linear(), TensorType(X.shape, range=range))
    assert (made.find_clipping() is not None) == known and made.find_options() == {}


@pytest.mark.parametrize("name", ["euler between indices on a table", "heun on a table", "flow-euler on a line"])
def test_guidance_is_the_class_s_with_the_two_outputs_combined(name):
    case, on = CASES[name]
    schedule = SCHEDULES[on]
    given, null = Network(case, schedule), Network(case, schedule)
    null.out = -null.out

    def combine(x_in, time):
        return null(x_in, time) + 3 * (given(x_in, time) - null(x_in, time))

    expected = run_by_hand(case, schedule, combine, noise())
    sides = {"cond": given, "null": null}
    guided = ClassifierFree(scale=3.0)(lambda x_t, t, *names: tuple(sides[name].denoise(x_t, t) for name in names))
    assert_close(run(build_sampler(case.part, schedule, **case.params), guided, noise()), expected[-1])


def spec(part, **params):
    line = part == "flow-euler"
    model = use(
        "diffusion",
        network=use("mlp", width=8, depth=1),
        schedule="flow" if line else "cosine",
        parametrization="flow" if line else "v",
        sampler=use(f"diffusers/{part}", **params),
    )
    return Spec(name="swap", data=use("digits", size=8), model=model, train={"steps": 1})


@pytest.mark.wide(2)
@pytest.mark.parametrize("part", PARTS)
def test_a_model_samples_the_same_in_any_batches(part):
    model = modkit.build(spec(part, steps=4))
    x = model.sample(5, seed=0)
    assert x.shape == (5, 1, 8, 8) and bool(x.isfinite().all()) and not torch.equal(x[0], x[1])
    torch.testing.assert_close(model.sample(5, seed=0, batch_size=2), x)


def test_a_swap_keeps_the_steps():
    chosen, dropped = apply(spec("euler", steps=7, use_karras_sigmas=True), ["model.sampler=ddim"])
    assert chosen.model["sampler"] == use("ddim", steps=7)
    assert dropped == ["swap model.sampler: dropped use_karras_sigmas (unknown to ddim)"]


MANY = {"steps": 200, "use_karras_sigmas": True}


@pytest.mark.parametrize(
    ("part", "schedule", "params", "match"),
    [
        ("ddim", EDM(), {}, r"DDIMScheduler expects a schedule of alpha_t\^2 \+ sigma_t\^2 = 1, got EDM, where"),
        ("euler", Line(), {}, r"EulerDiscreteScheduler expects .* = 1, got Flow, where it is 0.5\d* to 1"),
        ("pndm", Even(Line(), 4), {}, r"PNDMScheduler expects .* = 1, got Even, where it is 0.5 to 1"),
        ("unipc", Even(Cosine(), 4), {"steps": 4}, r"expects betas that float32 tells from 1, got Even, .* in float32"),
        ("dpm-solver++", EDM(), {}, r"DPMSolverMultistepScheduler expects .* = 1, got EDM, where"),
        ("flow-euler", Cosine(), {}, r"FlowMatchEulerDiscreteScheduler expects the schedule flow, .* got Cosine"),
        ("flow-euler", Line(), {"shift": 0.0}, "flow_euler expects shift to be above 0, got 0.0"),
        ("ddim", Linear(), {"eta": 1.5}, r"ddim expects eta to be in \[0, 1\], got 1.5"),
        ("ddim", Linear(), {"steps": 18}, r"DDIMScheduler expects steps that divide its 1000 .*, got 18 trail"),
        ("pndm", Linear(), {"steps": 18}, r"PNDMScheduler expects steps that divide its 1000 .*, got 18 trail"),
        ("pndm", Linear(), {"steps": 2, "skip_prk_steps": False}, r"PNDMScheduler expects steps in \[4, 500\] .* 2"),
        ("euler", Linear(), {"steps": 0}, r"EulerDiscreteScheduler expects steps in \[1, 1000\] .*, got 0"),
        ("ddpm", Linear(num=4), {"steps": 5}, r"DDPMScheduler expects steps in \[1, 4\] of its 4 .*, got 5"),
        ("dpm-solver++", Linear(), MANY, r"expects steps at decreasing .*, got 200 at \[.*\]; use .*_sigmas: f"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_words(part, schedule, params, match):
    with pytest.raises(ValueError, match=match):
        build_sampler(part, schedule, **params)


@pytest.mark.wide
def test_diffusers_is_not_imported_before_a_sampler_is_built():
    program = """
import sys
from modkit.parts.registry import get_registry
from modkit.parts.signature import read_parameters

found = [read_parameters(entry.part) for entry in get_registry().list_parts("sampler")]
print(len(found) > 10, "diffusers" in sys.modules)
"""
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert seen.split() == ["True", "False"]
