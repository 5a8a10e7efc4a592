import diffusers
import pytest
import torch
from diffusers.schedulers import scheduling_ddpm

from modkit.diffusion.schedules import EDM, Linear
from modkit.rng import Rng
from modkit.samplers import Ancestral
from modkit.types import Denoised, TensorType
from tests.samplers.loop import denoiser, in_float64, network, sample

F64 = torch.float64


@pytest.mark.parametrize("bound", [None, 1.0], ids=["unbounded", "clipped"])
@pytest.mark.parametrize("variance", ["small", "large", "learned"])
def test_equals_diffusers(variance, bound, monkeypatch):
    table, num = Linear(num=50, beta_end=0.3), 50
    kind = {"small": "fixed_small", "large": "fixed_large", "learned": "learned_range"}[variance]
    peer = diffusers.DDPMScheduler(
        num, variance_type=kind, clip_sample=bound is not None, clip_sample_range=bound or 1.0
    )
    peer = in_float64(peer, table.betas)
    peer.set_timesteps(num)
    noise = {}
    monkeypatch.setattr(scheduling_ddpm, "randn_tensor", lambda *args, **kwargs: noise["eps"])

    def raw_variance(x_t):
        return torch.sin(x_t)

    def denoise(x_t, t):
        x_0, _ = denoiser(table)(x_t, t)
        return Denoised(x_0, (raw_variance(x_t) + 1) / 2 if variance == "learned" else None)

    sampler = Ancestral(
        table, TensorType((3,), range=bound and (-bound, bound)), variance="large" if variance == "large" else "small"
    )
    eps = Rng(0).normal("start", torch.empty(5, 3, dtype=F64))
    x = sampler.start(eps, sampler.times()[0])
    for index, i in enumerate(peer.timesteps):
        out = network(x, (i.double() + 1) / num)
        if variance == "learned":
            out = torch.cat([out, raw_variance(x)], dim=1)
        noise["eps"] = Rng(0).at("sampler", index).normal("eps", x)
        x = peer.step(out, i, x).prev_sample
    torch.testing.assert_close(sample(sampler, denoise, eps), x, rtol=1e-8, atol=1e-8)


def test_steps_default_to_the_whole_table():
    assert len(Ancestral(Linear(num=37), TensorType((1,))).times()) == 38
    assert len(Ancestral(EDM(), TensorType((1,))).times()) == 1001
