"""The order of every solver, on the exact flow of a mixture; stochastic ones, on its moments."""

import math
from functools import partial

import diffusers
import pytest
import torch

from modkit.diffusion import parametrizations
from modkit.diffusion.parametrizations import X0, Eps, V
from modkit.diffusion.schedules import EDM, Cosine, Flow, Linear
from modkit.grids import Even, Karras, Leading, Linspace, LogSNR, Trailing
from modkit.rng import Rng
from modkit.samplers import DDIM, SDE, DPMSolverPlusPlus, Euler, Heun, Restart, UniPC
from modkit.types import Denoised, TensorType
from tests.mixture import Mixture, gaussian, ring
from tests.samplers.loop import in_float64, moments, sample

F64 = torch.float64
X = TensorType((2,))
EPS = Rng(0).normal("start", torch.empty(64, 2, dtype=F64))
SCHEDULES = {"linear": Linear(), "cosine": Cosine(), "edm": EDM(), "flow": Flow()}
THREE_M, UNIPC_3 = partial(DPMSolverPlusPlus, order=3), partial(UniPC, order=3)
GRIDS = {
    **{"even": Even, "shifted": partial(Even, shift=3.0), "karras": Karras, "log-snr": LogSNR},
    **{"leading": Leading, "linspace": Linspace, "trailing": Trailing},
}
ORDERS = {
    "ddim": (DDIM, 0.8, 1.2),
    "heun": (Heun, 1.8, 2.2),
    "2M": (DPMSolverPlusPlus, 1.8, 2.2),
    "3M": (THREE_M, 2.8, 3.2),
    "unipc 2": (UniPC, 2.8, 3.2),
    "unipc 3": (UNIPC_3, 3.3, 4.5),
}


def measure(x, y):
    return float((x - y).square().mean().sqrt())


@pytest.mark.wide(1)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_every_solver_is_of_its_order_on_every_schedule(schedule):
    """Even log SNR from 80 to a level of .05, 40 to 160 steps, a ring of 3 (deviation .5)."""
    denoise = ring(3, 1.0, 0.5).denoiser(schedule)

    def run(make, steps):
        times = LogSNR(schedule, sigma_min=0.05, sigma_max=80.0)(steps + 1)[:-1]
        return sample(make(schedule, X), denoise, EPS, times=times)

    exact = run(partial(UniPC, order=4), 800)
    for name, (make, low, high) in ORDERS.items():
        few, many = (measure(run(make, steps), exact) for steps in (40, 160))
        assert low < math.log2(few / many) / 2 < high, name


STOCHASTIC = {
    "2M SDE": partial(DPMSolverPlusPlus, eta=1.0),
    "3M SDE": partial(DPMSolverPlusPlus, order=3, eta=0.5),
    "sde": SDE,
    "sde sigma": partial(SDE, diffusion="sigma", scale=2.0),
    "restart": lambda schedule, x, steps: Restart(
        schedule, x, sampler=partial(DPMSolverPlusPlus, steps=steps), low=0.2, high=3.0, repeats=2
    ),
}


@pytest.mark.wide(3)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", [name for name in STOCHASTIC if name != "restart"])
def test_stochastic_solvers_make_a_gaussians_mean_and_covariance(name, schedule):
    """Exactly, by impulses: what is left is the solver's error alone."""
    mixture = gaussian([0.5, -0.3], [[0.4, 0.1], [0.1, 0.2]])
    mean, cov = moments(STOCHASTIC[name](schedule, X, steps=300), mixture)
    error = 0.02 if name.startswith("sde") else 0.002
    assert (mean - mixture.means[0]).abs().max() < 0.006  # the start leaves alpha_1 x_0 out
    assert (cov - mixture.covs[0]).abs().max() < error


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", STOCHASTIC)
def test_stochastic_solvers_make_a_mixtures_moments_within_three_standard_errors(name):
    mixture, schedule, num = ring(3, 1.0, 0.5), Flow(), 4000
    mean, cov = mixture.moments()
    eps = Rng(1).normal("start", torch.empty(num, 2, dtype=F64))
    steps = 200 if name == "sde sigma" else 100  # the more noise, the larger the error of first order
    x = sample(STOCHASTIC[name](schedule, X, steps=steps), mixture.denoiser(schedule), eps, Rng(2))
    assert ((x.mean(0) - mean).abs() < 3 * (cov.diagonal() / num).sqrt()).all()
    products = torch.einsum("bi,bj->bij", x - mean, x - mean)
    assert ((products.mean(0) - cov).abs() < 3 * products.std(0) / math.sqrt(num)).all()


def spread_evenly(num, radius, std):
    """A ring whose components weigh the same."""
    one = ring(num, radius, std)
    return Mixture(torch.full((num,), 1 / num), one.means, one.covs)


@pytest.mark.wide(1)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' use of numpy
@pytest.mark.parametrize(("evaluations", "published"), [(15, 0.0244), (20, 0.0134)])
def test_the_best_ends_far_closer_to_the_flow_than_diffusers_best(evaluations, published):
    """A ring of 5 (deviation .2) on `linear`, beside diffusers' 2M and UniPC over their spacings."""
    table, eps = Linear(), Rng(0).normal("start", torch.empty(256, 2, dtype=F64))
    mixture = spread_evenly(5, 1.0, 0.2)
    denoise, alpha = mixture.denoiser(table), float(table.scales(torch.ones(1))[0])
    exact = sample(UNIPC_3(table, X, steps=400, grid=partial(LogSNR, sigma_max=None)), denoise, eps)

    def run_diffusers(make, spacing):
        peer = make(beta_schedule="linear", prediction_type="sample", solver_order=2, **spacing)
        peer = in_float64(peer, table.betas)
        peer.set_timesteps(evaluations)
        x = eps * (1 - alpha**2) ** 0.5
        for t in peer.timesteps:
            x = peer.step(denoise(x, (t.double() + 1) / 1000).x_0, t, x).prev_sample
        return measure(x, exact)

    spacings = [
        {"timestep_spacing": spacing, "final_sigmas_type": "zero", **levels}
        for spacing in ("linspace", "leading", "trailing")
        for levels in ({}, {"use_karras_sigmas": True}, {"use_lu_lambdas": True})
    ]
    theirs = [
        run_diffusers(make, spacing)
        for make in (diffusers.DPMSolverMultistepScheduler, diffusers.UniPCMultistepScheduler)
        for spacing in spacings
        if not ("use_lu_lambdas" in spacing and make is diffusers.UniPCMultistepScheduler)
    ]
    ours = [
        measure(sample(make(table, X, steps=evaluations, grid=partial(LogSNR, sigma_max=20.0)), denoise, eps), exact)
        for make in (THREE_M, UniPC, UNIPC_3)
    ]
    assert min(ours) < 0.6 * min(*theirs, published)


@pytest.mark.wide(1)
@pytest.mark.parametrize("make", [DDIM, Euler, Heun, DPMSolverPlusPlus, THREE_M, UniPC, UNIPC_3])
def test_on_a_straight_schedule_samplers_step_evenly_unless_told_otherwise(make):
    """In 10 evaluations they end at least a third nearer to the flow than on EDM's levels, on rings of 3, 5 and 8."""
    table = Flow()
    steps = 5 if make is Heun else 10
    for mixture in (spread_evenly(3, 0.65, 0.15), spread_evenly(5, 1.0, 0.2), spread_evenly(8, 1.3, 0.1)):
        denoise = mixture.denoiser(table)
        exact = sample(UNIPC_3(table, X, steps=400, grid=LogSNR), denoise, EPS)
        usual, levels = (
            measure(sample(make(table, X, steps=steps, **grid), denoise, EPS), exact) for grid in ({}, {"grid": Karras})
        )
        assert usual < 0.75 * levels


def solve(make, schedule, grid, steps):
    """The error of a solver on the times of a grid down to a level of .05, for normal data, whose flow is known."""
    mean, variance = torch.tensor([0.5, -0.3], dtype=F64), torch.tensor([0.5, 0.1], dtype=F64)
    sampler = make(schedule, X, steps=steps, grid=grid)
    end = schedule.time(torch.tensor(0.05, dtype=F64))
    times = torch.cat([sampler.times()[sampler.times() > end + 1e-9], end[None]])

    def denoise(x_t, t):
        alpha, sigma = sampler.scales(t)
        return Denoised(mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x_t - alpha * mean))

    alpha, sigma = schedule.scales(times[[0, -1]])
    start, last = (alpha[:, None] ** 2 * variance + sigma[:, None] ** 2).sqrt()
    exact = alpha[1] * mean + last / start * (sigma[0] * EPS[:4] - alpha[0] * mean)
    return measure(sample(sampler, denoise, EPS[:4], times=times), exact)


TABLED = ("leading", "linspace", "trailing")
ON_GRIDS = [
    (schedule, name)
    for schedule, made in SCHEDULES.items()
    for name in GRIDS
    if not (made.num is None and name in TABLED) and not (schedule == "edm" and GRIDS[name] not in (Karras, LogSNR))
]
"""Even times are even levels on EDM's schedule: the last of n is 80 / n, far above .05."""


@pytest.mark.wide(1)
@pytest.mark.parametrize(("schedule", "name"), ON_GRIDS)
def test_every_solver_is_above_the_order_below_on_every_grid(schedule, name):
    """Steps of even times grow in log SNR towards the end, and the slope rises to the order slowly."""
    least = {"ddim": 0.9, "heun": 1.8, "2M": 1.5, "3M": 2.0, "unipc 2": 2.0, "unipc 3": 2.3}
    close = GRIDS[name] in (Karras, LogSNR)
    for solver, (make, low, _) in ORDERS.items():
        few, many = (solve(make, SCHEDULES[schedule], GRIDS[name], steps) for steps in (60, 240))
        assert math.log2(few / many) / 2 > (low if close else least[solver]), solver


PARAMETRIZATIONS = {"x0": X0, "eps": Eps, "v": V, "edm": parametrizations.EDM, "flow": parametrizations.Flow}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS.values(), ids=PARAMETRIZATIONS)
def test_every_parametrization_leaves_the_flow_as_it_is(parametrization, schedule):
    """The network's exact output, of each, is converted to the same x_0, so that orders are those of x_0."""
    part, denoise = parametrization(schedule), ring(3, 1.0, 0.5).denoiser(schedule)

    def convert(x_t, t):
        scales = schedule.scales(t[None])
        known = {name: float(value) for name, value in part.coefficients(t[None], scales).items()}
        x_0 = denoise(x_t, t).x_0
        eps = (x_t - float(scales[0]) * x_0) / float(scales[1])
        return part.denoised(known["to_x_0"] * x_0 + known["to_eps"] * eps, x_t, known)

    sampler = UNIPC_3(schedule, X, steps=12, grid=partial(LogSNR, sigma_max=80.0))
    torch.testing.assert_close(sample(sampler, convert, EPS), sample(sampler, denoise, EPS), rtol=0, atol=1e-9)


@pytest.mark.wide(2)
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_solvers_of_third_order_converge_to_the_flow_on_every_grid(schedule, name):
    """Even times on EDM's schedule are the slowest: their last step is from a level of 80 / n."""
    mixture = gaussian([0.5, -0.3], [[0.4, 0.1], [0.1, 0.2]])
    for solver in (THREE_M, UNIPC_3):
        covs = [moments(solver(schedule, X, steps=steps, grid=GRIDS[name]), mixture)[1] for steps in (30, 120)]
        few, many = (float((cov - mixture.covs[0]).abs().max()) for cov in covs)
        assert many < 1e-3 or many < 0.95 * few
