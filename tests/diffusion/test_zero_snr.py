from functools import partial

import diffusers
import pytest
import torch

from modkit.diffusion.parametrizations import EDM, X0, Eps, EpsLearned, Flow, V
from modkit.diffusion.schedules import VP, Cosine, Linear
from modkit.diffusion.zero_snr import ZeroTerminalSNR
from modkit.grids import Karras, Trailing
from modkit.samplers import DDIM, SDE, Ancestral, DPMSolverPlusPlus, Euler, Heun, UniPC
from modkit.types import TensorType
from tests.mixture import gaussian
from tests.refusals import refusals
from tests.samplers.loop import moments, sample

F64 = torch.float64
SOLVERS = {
    **{"ancestral": Ancestral, "ddim": DDIM, "euler": Euler, "heun": Heun, "2M": DPMSolverPlusPlus, "unipc": UniPC},
    **{"3M": partial(DPMSolverPlusPlus, order=3), "2M SDE": partial(DPMSolverPlusPlus, eta=1.0), "sde": SDE},
}


def test_its_table_is_diffusers():
    peer = diffusers.DDIMScheduler(beta_schedule="linear", rescale_betas_zero_snr=True, clip_sample=False)
    alpha, sigma = ZeroTerminalSNR(schedule=Linear).scales(torch.arange(1, 1001, dtype=F64) / 1000)
    expected = peer.alphas_cumprod.double().sqrt()
    torch.testing.assert_close(alpha[:-1], expected[:-1], rtol=1e-3, atol=1e-6)  # diffusers' tables are float32
    assert alpha[-1] == pytest.approx(2.0**-24, rel=1e-9) and sigma[-1] > 1 - 1e-12 and expected[-1] < 1e-6


@pytest.mark.parametrize("table", [Linear, Cosine])
def test_the_first_index_keeps_its_noise_and_every_level_has_its_time(table):
    schedule, t = ZeroTerminalSNR(schedule=table), torch.arange(1, 1001, dtype=F64) / 1000
    assert schedule.scales(t[:1])[0] == pytest.approx(float(table().scales(t[:1])[0]))
    alpha, sigma = schedule.scales(t)
    torch.testing.assert_close(schedule.time(sigma / alpha), t, rtol=1e-6, atol=1e-6)


@pytest.mark.wide(4)
@pytest.mark.parametrize("grid", [Trailing, Karras])
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_makes_the_data_s_moments_from_pure_noise(name, grid):
    """With a mean, of which what is left at t = 1 on a common table tells."""
    schedule, mixture = ZeroTerminalSNR(schedule=Linear), gaussian([5.0, -3.0], [[0.4, 0.1], [0.1, 0.2]])
    sampler = SOLVERS[name](schedule, TensorType((2,)), steps=250, grid=grid)
    mean, cov = moments(sampler, mixture)
    assert (mean - mixture.means[0]).abs().max() < (1e-3 if grid is Trailing else 0.05)
    assert (cov - mixture.covs[0]).abs().max() < 0.03


@pytest.mark.parametrize("part", [V, X0, Flow, EDM])
def test_other_parametrizations_are_finite_at_pure_noise(part):
    schedule, t = ZeroTerminalSNR(schedule=Linear), torch.ones(1, dtype=F64)
    values = part(schedule).coefficients(t, schedule.scales(t))
    assert all(value.isfinite().all() and value.abs().max() < 1e6 for value in values.values()) or part is EDM
    x = sample(DDIM(schedule, TensorType((2,)), steps=4), gaussian([1.0], [[1.0]]).denoiser(schedule), torch.ones(1, 1))
    assert x.isfinite().all()


test_errors = refusals(
    (
        lambda: Eps(ZeroTerminalSNR()),
        "Eps expects a table with some signal at t = 1 .*: v, x0 or flow.*, got ZeroTerminalSNR",
    ),
    (lambda: EpsLearned(ZeroTerminalSNR()), "EpsLearned expects a table with some signal at t = 1"),
    (
        lambda: ZeroTerminalSNR(schedule=VP),
        "ZeroTerminalSNR expects a schedule with a table of 2 or more, got VP of num None",
    ),
)
