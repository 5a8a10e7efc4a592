import diffusers
import pytest
import torch

from modkit.diffusion.schedules import Linear
from modkit.grids import Leading, Trailing
from modkit.rng import Rng
from modkit.samplers import DDIM, ddim_step, posterior
from modkit.types import Denoised, TensorType
from tests.samplers.loop import denoiser, in_float64, network, sample

F64 = torch.float64
TABLE = Linear()
GRIDS = {"leading": Leading, "trailing": Trailing}


def half(x_t, t):
    alpha, sigma = TABLE.scales(t)
    return Denoised((x_t - sigma * 0.5 * x_t) / alpha)


@pytest.mark.smoke
@pytest.mark.parametrize(("spacing", "expected"), [("leading", 7.40640383), ("trailing", 13.29200267)])
def test_ten_steps_of_a_known_network(spacing, expected):
    sampler = DDIM(TABLE, TensorType((1,)), steps=10, grid=GRIDS[spacing])
    times = sampler.times()
    start = torch.ones(1, 1, dtype=F64) / TABLE.scales(times[0])[1]
    assert float(sample(sampler, half, start)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("bound", [None, 1.0], ids=["unbounded", "clipped"])
@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_equals_diffusers(spacing, eta, bound):
    peer = diffusers.DDIMScheduler(
        beta_schedule="linear", timestep_spacing=spacing, clip_sample=bound is not None, clip_sample_range=bound or 1.0
    )
    peer = in_float64(peer, TABLE.betas)
    peer.set_timesteps(20)
    sampler = DDIM(TABLE, TensorType((3,), range=bound and (-bound, bound)), steps=20, eta=eta, grid=GRIDS[spacing])
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    x = sampler.start(eps, sampler.times()[0])
    for index, i in enumerate(peer.timesteps):
        out = network(x, (i.double() + 1) / 1000)
        noise = Rng(0).at("sampler", index).normal("eps", x)
        x = peer.step(out, i, x, eta=eta, use_clipped_model_output=True, variance_noise=noise).prev_sample
    torch.testing.assert_close(sample(sampler, denoiser(TABLE), eps), x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tensors", [False, True], ids=["numbers", "tensors"])
def test_eta_of_one_draws_from_the_posterior(tensors):
    t, s = torch.tensor([0.7, 0.2], dtype=F64), torch.tensor([0.5, 0.1], dtype=F64)
    scales_t, scales_s = TABLE.scales(t), TABLE.scales(s)
    if not tensors:
        scales_t, scales_s = (tuple(float(v[0]) for v in pair) for pair in (scales_t, scales_s))
    x_t, x_0 = (Rng(0).normal(name, torch.empty(2, 3, 4, dtype=F64)) for name in ("x_t", "x_0"))
    q = posterior(x_t, x_0, scales_t, scales_s)
    std = torch.as_tensor(q.small, dtype=F64).sqrt().view(-1, 1, 1)
    expected = q.mean + std * Rng(1).normal("eps", x_t)
    got = ddim_step(x_t, x_0, scales_t, scales_s, eta=1.0, rng=Rng(1))
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_errors():
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match=r"ddim_step expects eta to be in \[0, 1\], got -0.1"):
        ddim_step(x, x, (0.6, 0.8), (0.8, 0.6), eta=-0.1)
    with pytest.raises(ValueError, match="ddim_step expects an rng with eta above 0, got eta 0.5 and rng None"):
        ddim_step(x, x, (0.6, 0.8), (0.8, 0.6), eta=0.5)


def test_a_step_keeps_the_marginal_for_every_eta():
    scales_t, scales_s = (0.6, 0.8), (0.8, 0.6)
    for eta in (0.0, 0.4, 1.0):
        x_0 = torch.full((50000, 1), 0.7, dtype=F64)
        x_t = 0.6 * x_0 + 0.8 * Rng(0).normal("start", x_0)
        x_s = ddim_step(x_t, x_0, scales_t, scales_s, eta=eta, rng=Rng(1))
        assert float(x_s.mean()) == pytest.approx(0.8 * 0.7, abs=0.012)
        assert float(x_s.std()) == pytest.approx(0.6, abs=0.012)
