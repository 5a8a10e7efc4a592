import math
import re
from functools import partial

import pytest
import torch

from modkit import SpecError, use
from modkit.diffusion import schedules
from modkit.diffusion.schedules import EDM, Cosine, Flow, Linear, find_noise_range
from modkit.grids import Even, Karras, Trailing, space_noise_levels
from modkit.kinds import SamplerExtras, read_extras
from modkit.models import Diffusion
from modkit.rng import Rng
from modkit.samplers import DDIM, SDE, Ancestral, Consistency, DPMSolverPlusPlus, Euler, Heun, UniPC
from modkit.samplers.grid import move_spacing
from modkit.types import Denoised, TensorType
from tests.mixture import gaussian, ring
from tests.refusals import refusals
from tests.samplers.loop import Counter, moments, sample

F64 = torch.float64
X = TensorType((2,))
SCHEDULES = {"linear": Linear(), "cosine": Cosine(), "edm": EDM(), "flow": Flow()}
SAMPLERS = {
    "ancestral": lambda schedule, x, steps: Ancestral(schedule, x, steps=steps),
    "ancestral large": lambda schedule, x, steps: Ancestral(schedule, x, steps=steps, variance="large"),
    "ddim": lambda schedule, x, steps: DDIM(schedule, x, steps=steps),
    "ddim half": lambda schedule, x, steps: DDIM(schedule, x, steps=steps, eta=0.5),
    "euler": lambda schedule, x, steps: Euler(schedule, x, steps=steps),
    "heun": lambda schedule, x, steps: Heun(schedule, x, steps=steps),
    "heun churned": lambda schedule, x, steps: Heun(schedule, x, steps=steps, churn=5.0),
    "dpm-solver++": lambda schedule, x, steps: DPMSolverPlusPlus(schedule, x, steps=steps),
    "dpm-solver++ 1": lambda schedule, x, steps: DPMSolverPlusPlus(schedule, x, steps=steps, order=1),
}


MORE = {
    **SAMPLERS,
    "3M SDE": lambda schedule, x, steps: DPMSolverPlusPlus(schedule, x, steps=steps, order=3, eta=1.0),
    "unipc": lambda schedule, x, steps: UniPC(schedule, x, steps=steps),
    "sde": lambda schedule, x, steps: SDE(schedule, x, steps=steps),
    "consistency": lambda schedule, x, steps: Consistency(schedule, x, steps=steps),
}
"""Those of which `test_orders.py` has the values as well."""

GRIDS = {"even": Even, "karras": Karras}
IMPLIABLE = {"dpm-solver++": DPMSolverPlusPlus, "heun": Heun, "euler": Euler}
LARGEST = {"heun": 0.01, "heun churned": 0.015, "dpm-solver++": 0.002}


class Rotation:
    """A third party's schedule, with only what the kind requires."""

    num = None

    def __init__(self, angle=1.56):
        self.angle = angle

    def scales(self, t):
        return torch.cos(self.angle * t), torch.sin(self.angle * t)

    def time(self, sigma):
        return torch.atan(sigma) / self.angle


def levels_of(schedule, times):
    alpha, sigma = schedule.scales(times)
    return (sigma / alpha).tolist()


def rmse(x, y):
    return float((x - y).square().mean().sqrt())


@pytest.mark.parametrize("make", [Euler, Heun])
@pytest.mark.parametrize(("std", "first"), [(None, 80.0), (1.0, 160.0), (0.1, 16.0)])
def test_noise_levels_start_at_160_deviations_of_the_data(make, std, first):
    x = TensorType((2,), std=std)
    for schedule in (Cosine(), Rotation(1.5707)):  # which end at levels of 20291 and 10,000
        assert levels_of(schedule, make(schedule, x).times())[0] == pytest.approx(first, rel=1e-6)
        full = levels_of(schedule, make(schedule, x, grid=partial(Karras, sigma_max=None)).times())[0]
        assert full == pytest.approx(find_noise_range(schedule)[1], rel=1e-6) and full > 10_000
    assert levels_of(EDM(sigma_max=50.0), make(EDM(sigma_max=50.0), x).times())[0] == pytest.approx(50)  # it states one
    short = schedules.Even(EDM(), 2)  # whose levels are 40 and 80
    assert levels_of(short, make(short, TensorType((2,), std=0.1), steps=2).times()) == pytest.approx([80, FEW, 0])


FEW = ((80 ** (1 / 7) + 40 ** (1 / 7)) / 2) ** 7  # between two levels, as EDM spaces them


@pytest.mark.wide
def test_heun_follows_the_flow_more_closely_from_80_than_from_a_table_s_last_level():
    schedule, mixture = Cosine(), ring(5, 0.65, 0.15)
    eps = Rng(0).normal("start", torch.empty(200, 2, dtype=F64))

    def measure(**ends):
        few, many = (Heun(schedule, X, steps=steps, **ends) for steps in (18, 600))
        return rmse(*(sample(one, mixture.denoiser(schedule), eps) for one in (few, many)))

    assert measure() < 0.025 and measure(grid=partial(Karras, sigma_min=None, sigma_max=None)) > 0.12


@pytest.mark.parametrize("steps", [1, 2, 5, 17])
def test_few_levels_end_at_0_without_a_visit_to_the_lowest(steps):
    levels = levels_of(EDM(), space_noise_levels(None, EDM(), steps + 1))[:-2] + [0.0]
    for sampler in (Euler(EDM(), X, steps=steps), Heun(EDM(), X, steps=steps), DDIM(EDM(), X, steps=steps)):
        assert levels_of(EDM(), sampler.times()) == pytest.approx(levels, rel=1e-9)
    published = space_noise_levels(None, EDM(), steps)
    assert torch.equal(Heun(EDM(), X, steps=steps, grid=partial(Karras, sigma_min=None)).times(), published)
    for make in (DDIM, Ancestral, DPMSolverPlusPlus):
        assert torch.equal(make(EDM(), X, steps=steps, grid=Trailing).times(), published)


@pytest.mark.wide(1)
@pytest.mark.parametrize(("name", "ratio"), [("euler", 0.95), ("heun", 0.85), ("dpm-solver++", 0.75)])
def test_few_levels_end_closer_to_the_flow_without_the_lowest(name, ratio):
    schedule, mixture = EDM(), ring(5, 0.65, 0.05)
    eps = Rng(0).normal("start", torch.empty(200, 2, dtype=F64))
    exact = sample(Heun(schedule, X, steps=800), mixture.denoiser(schedule), eps)
    sampler = SAMPLERS[name](schedule, X, 8)
    short, published = (
        rmse(sample(sampler, mixture.denoiser(schedule), eps, times=times), exact)
        for times in (sampler.times(), space_noise_levels(None, schedule, 8))
    )
    assert short < ratio * published


@pytest.mark.wide(1)
@pytest.mark.parametrize("evaluations", [8, 20])
def test_flow_implies_the_sampler_that_ends_closest_to_its_flow(evaluations):
    implied = Flow.implies["sampler"]
    x = TensorType((2,), std=1.0)
    schedule, eps = Flow(x), Rng(0).normal("start", torch.empty(200, 2, dtype=F64))
    errors = dict.fromkeys([(name, spacing) for name in IMPLIABLE for spacing in GRIDS], 0.0)
    for num, std in ((3, 0.2), (5, 0.5)):
        raw = ring(num, 1.0, std)
        scale = float(raw.moments()[1].trace() / 2) ** -0.5
        denoise = ring(num, scale, std * scale).denoiser(schedule)
        exact = sample(Heun(schedule, x, steps=400), denoise, eps)
        for name, spacing in errors:
            steps = (evaluations + 1) // 2 if name == "heun" else evaluations
            sampler = IMPLIABLE[name](schedule, x, steps=steps, grid=GRIDS[spacing])
            errors[name, spacing] += math.log(rmse(sample(sampler, denoise, eps), exact))
    assert min(errors, key=errors.get) == (implied["use"], implied["grid"])


@pytest.mark.parametrize("make", [DDIM, Ancestral, Euler, Heun, DPMSolverPlusPlus])
def test_even_times(make):
    even = [1.0, 0.75, 0.5, 0.25, 0.0]
    assert make(Flow(), X, steps=4, grid=Even).times().tolist() == even
    assert make(Linear(num=1000), X, steps=4, grid=Even).times().tolist() == even
    three = make(Linear(num=10), X, steps=3, grid=Even).times() * 10
    assert three.tolist() == pytest.approx([10, 7, 3, 0])  # rounded to indices


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("make", "steps", "even", "published"),
    [(DPMSolverPlusPlus, 8, 0.1, 0.25), (DDIM, 8, 0.18, 0.25), (Euler, 8, 0.18, 0.25), (Heun, 5, 0.1, 0.7)],
)
def test_even_times_on_the_flow_follow_it_closely_in_few_evaluations(make, steps, even, published):
    schedule, mixture = Flow(), ring(5, 2.0, 0.3)
    eps = Rng(0).normal("start", torch.empty(200, 2, dtype=F64))

    def measure(few, many):
        return rmse(*(sample(one, mixture.denoiser(schedule), eps) for one in (few, many)))

    assert measure(make(schedule, X, steps=steps, grid=Even), Heun(schedule, X, steps=500, grid=Even)) < even
    assert measure(make(schedule, X, steps=steps, grid=Trailing), Heun(schedule, X, steps=500)) > published


def test_heun_is_of_second_order_on_even_times_from_hardly_any_signal():
    schedule, mixture = Flow(), gaussian([0.5], [[0.3]])
    eps = torch.tensor([[1.0], [-0.4]], dtype=F64)
    exact = 0.5 + eps * 0.3**0.5
    samplers = [Heun(schedule, TensorType((1,)), steps=steps, grid=Even) for steps in (50, 100, 200)]
    errors = torch.stack([(sample(one, mixture.denoiser(schedule), eps) - exact).abs().max() for one in samplers])
    assert (torch.log2(errors[:-1] / errors[1:]) - 2).abs().max() < 0.15


@pytest.mark.parametrize("name", MORE)
@pytest.mark.parametrize(
    ("clip", "bounds", "end"),
    [
        *((True, (-1, 1), 1), (False, None, 7), ([-3.0, 2.0], (-3, 2), 2), ([0, 5], (0, 5), 5)),
        *(("dynamic", (-1, 1), 1), (0.9, (-1, 1), 1)),
    ],
)
def test_clipping_is_the_user_s_choice(name, clip, bounds, end):
    make = type(MORE[name](EDM(), X, 5))
    sampler = make(SCHEDULES["linear"], TensorType((2,), range=(-1, 1)), steps=5, clip=clip)
    assert read_extras(sampler, SamplerExtras).bounds == bounds
    got = sample(sampler, lambda x_t, t: Denoised(torch.full_like(x_t, 7.0)), torch.zeros(1, 2, dtype=F64))
    assert got.tolist() == [[end, end]]
    assert make(SCHEDULES["linear"], X, steps=5).bounds is None
    assert read_extras(object(), SamplerExtras).bounds == "range"


@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), Rotation()], ids=[*SCHEDULES, "third party"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_on_every_schedule_makes_a_gaussians_mean_and_covariance(name, schedule):
    mixture = gaussian([0.5, -0.3], [[0.4, 0.1], [0.1, 0.2]])
    errors = []
    for steps in (25, 100):
        mean, cov = moments(SAMPLERS[name](schedule, X, steps), mixture)
        assert (mean - mixture.means[0]).abs().max() < 0.006  # the start leaves alpha_1 x_0 out
        errors.append(float((cov - mixture.covs[0]).abs().max()))
    assert errors[1] < 0.55 * errors[0] or errors[1] < 2e-3
    assert errors[1] < LARGEST.get(name, 0.06)


@pytest.mark.wide(3)
@pytest.mark.parametrize("schedule", [*SCHEDULES.values(), Rotation()], ids=[*SCHEDULES, "third party"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_on_every_schedule_finds_a_mixtures_modes_in_proportion(name, schedule):
    mixture = ring()
    eps = Rng(0).normal("start", torch.empty(1000, 2, dtype=F64))
    x = sample(SAMPLERS[name](schedule, X, 60), mixture.denoiser(schedule), eps, Rng(1))
    share = mixture.responsibilities(x)
    torch.testing.assert_close(share.mean(0), mixture.weights, rtol=0, atol=0.05)  # three standard errors
    spread = x - mixture.means[share.argmax(1)]
    assert float(spread.std()) == pytest.approx(0.3, abs=0.045)  # what 60 ancestral steps leave


@pytest.mark.wide(1)
@pytest.mark.parametrize(
    ("make", "sigma_min", "steps", "order", "error"),
    [
        (partial(Euler, grid=partial(Karras, sigma_min=1e-4)), 0.002, 200, 1, 0.05),
        (partial(Heun, grid=partial(Karras, sigma_min=1e-5)), 0.002, 100, 2, 0.1),
        (DPMSolverPlusPlus, 1e-5, 200, 2, 0.15),
    ],
    ids=["euler", "heun", "dpm-solver++"],
)
def test_it_converges_at_its_order(make, sigma_min, steps, order, error):
    mixture, schedule = gaussian([0.5], [[0.3]]), EDM(sigma_min=sigma_min)
    start = torch.tensor([[1.0], [-0.4]], dtype=F64)
    exact = 0.5 + (80 * start - 0.5) * (0.3 / (0.3 + 80**2)) ** 0.5
    samplers = [make(schedule, TensorType((1,)), steps=num) for num in (steps, 2 * steps, 4 * steps)]
    errors = torch.stack([(sample(one, mixture.denoiser(schedule), start) - exact).abs().max() for one in samplers])
    assert (torch.log2(errors[:-1] / errors[1:]) - order).abs().max() < error


@pytest.mark.parametrize("name", MORE)
def test_the_number_of_evaluations(name):
    counter = Counter(ring().denoiser(EDM()))
    sample(MORE[name](EDM(), X, 9), counter, torch.zeros(1, 2, dtype=F64))
    assert len(counter.times) == (17 if name.startswith("heun") else 9)
    assert min(counter.times) > 0


@pytest.mark.parametrize("name", MORE)
def test_predictions_are_clipped_where_the_type_has_a_range_and_only_there(name):
    def denoise(x_t, t):
        return Denoised(torch.full_like(x_t, 7.0))

    eps = torch.zeros(1, 2, dtype=F64)
    bounded = MORE[name](SCHEDULES["linear"], TensorType((2,), range=(-1, 1)), 5)
    assert sample(bounded, denoise, eps).tolist() == [[1, 1]]
    assert sample(MORE[name](SCHEDULES["linear"], X, 5), denoise, eps).tolist() == [[7, 7]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MORE)
def test_the_dtype_is_kept_and_float32_follows_float64(name, dtype):
    def denoise(x_t, t):
        return Denoised(torch.tanh(x_t))

    sampler = MORE[name](SCHEDULES["cosine"], X, 8)
    eps = Rng(0).normal("start", torch.empty(4, 2, dtype=dtype))
    x = sample(sampler, denoise, eps)
    assert x.dtype == dtype
    if dtype == torch.float32:
        expected = sample(sampler, denoise, eps.double())
        torch.testing.assert_close(x.double(), expected, rtol=1e-3, atol=1e-4)  # Heun's eps has 1/sigma of rounding


def test_gradients_flow_through_a_step():
    sampler = DDIM(SCHEDULES["cosine"], X, steps=4)
    eps = torch.ones(1, 2, dtype=F64, requires_grad=True)
    t, s = sampler.times()[:2]
    x_s, _ = sampler.step(lambda x_t, t: Denoised(0.5 * x_t), eps, t, s, None, Rng(0))
    (gradient,) = torch.autograd.grad(x_s.sum(), eps)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = sampler.scales(t), sampler.scales(s)
    expected = 0.5 * alpha_s + sigma_s * (1 - 0.5 * alpha_t) / sigma_t
    assert gradient.flatten().tolist() == pytest.approx([expected] * 2, rel=1e-12)


class Learned:
    """A schedule that training changes: its noise levels end at `top`."""

    num, sigma_min, top = None, 0.1, 10.0

    @property
    def sigma_max(self):
        return self.top

    def scales(self, t):
        return torch.ones_like(t), self.top * t**2

    def time(self, sigma):
        return (sigma / self.top).sqrt()


@pytest.mark.parametrize("name", MORE)
def test_a_grid_is_made_at_each_draw(name):
    """So a schedule may have been trained since."""
    schedule, denoise = Learned(), lambda x_t, t: Denoised(0.5 * x_t)  # noqa: E731
    sampler, eps = MORE[name](schedule, X, 5), torch.ones(1, 2, dtype=F64)
    before = sample(sampler, denoise, eps)
    schedule.top = 20.0
    after = sample(sampler, denoise, eps)
    assert torch.equal(after, sample(MORE[name](schedule, X, 5), denoise, eps)) and not torch.equal(before, after)


def test_what_samplers_were_told_before_grids_were_parts():
    for params, grid in (
        ({"spacing": "karras", "rho": 5.0, "sigma_min": None}, Karras(Cosine(), X, rho=5.0, sigma_min=None)),
        ({"spacing": "even", "rho": 7.0, "sigma_min": "auto"}, Even(Cosine())),
    ):
        model = Diffusion(X, network="mlp", sampler=use("heun", steps=4, **params))
        assert model.sampler.times().equal(grid(4))
    for params, grid in (
        ({"grid": {"use": "karras", "sigma_min": None}, "rho": 3.0}, {"use": "karras", "sigma_min": None, "rho": 3.0}),
        ({"rho": 3.0}, {"use": "karras", "rho": 3.0}),
    ):
        assert move_spacing({"steps": 3, **params}) == {"steps": 3, "grid": grid}
    assert move_spacing({"grid": "even"}) == {"grid": "even"}


@pytest.mark.parametrize(
    "params, message",
    [
        (
            {"grid": "karras", "spacing": "even"},
            "expected `grid` alone, whose former name is `spacing`, got spacing 'even'",
        ),
        ({"grid": "even", "rho": 3.0}, "in a grid, such as {use: karras, rho: 5}, got rho 3.0, grid 'even'"),
    ],
)
def test_what_would_be_ignored_beside_a_grid_is_refused(params, message):
    with pytest.raises(SpecError, match=re.escape(message)):
        Diffusion(X, network="mlp", sampler=use("heun", **params))


def test_times_are_a_copy_and_scales_are_right_off_the_grid():
    sampler = DDIM(SCHEDULES["linear"], X, steps=4)
    sampler.times().zero_()
    assert sampler.times()[0] == 1
    for t in (sampler.times()[1], torch.tensor(0.1234, dtype=F64)):
        assert sampler.scales(t) == tuple(float(v) for v in SCHEDULES["linear"].scales(t))


test_errors_name_what_was_expected_and_received = refusals(
    (lambda: DDIM(Linear(), X, steps=0), r"Trailing expects steps in \[1, 1000\] on a table of 1000, got 0"),
    (lambda: DDIM(Linear(), X, eta=1.5), r"DDIM expects eta to be in \[0, 1\], got 1.5"),
    (lambda: Ancestral(Linear(), X, variance="mid"), "Ancestral expects variance to be 'small' or 'large', got 'mid'"),
    (lambda: DPMSolverPlusPlus(Linear(), X, order=4), "DPMSolverPlusPlus expects order to be 1, 2 or 3, got 4"),
    (lambda: DPMSolverPlusPlus(Linear(), X, eta=2.0), r"DPMSolverPlusPlus expects eta to be in \[0, 1\], got 2.0"),
    (lambda: Heun(EDM(), X, churn=-1.0), r"Heun expects churn to be at least 0, got -1\.0"),
    (lambda: DDIM(Linear(), X, clip=[1.0]), r"DDIM expects clip to be true, false, \[low, high\] .*, got \[1.0\]"),
    (lambda: Heun(Linear(), X, clip=[1.0, -1.0]), r"Heun expects clip to be .* with low < high, .*, got \[1.0, -1.0\]"),
    (lambda: Ancestral(Linear(), X, clip=[0.0, float("inf")]), r"Ancestral expects clip to be .*, got \[0.0, inf\]"),
)


@pytest.mark.parametrize("schedule", [Linear, Cosine, EDM])
@pytest.mark.parametrize("name", MORE)
def test_grids_are_built_on_the_cpu_where_modules_are_built_on_meta(name, schedule):
    with torch.device("meta"):
        sampler = MORE[name](schedule(), X, 6)
    assert torch.equal(sampler.times(), MORE[name](schedule(), X, 6).times())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", MORE)
def test_samples_on_cuda_equal_those_on_the_cpu(name):
    sampler = MORE[name](SCHEDULES["linear"], X, 10)
    eps = Rng(0).normal("start", torch.empty(8, 2, dtype=F64))

    def denoise(x_t, t):
        return Denoised(torch.tanh(x_t))

    on_device = sample(sampler, denoise, eps.cuda())
    assert on_device.is_cuda
    torch.testing.assert_close(on_device.cpu(), sample(sampler, denoise, eps), rtol=1e-9, atol=1e-9)
