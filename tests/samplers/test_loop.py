import pytest
import torch

import modkit
from modkit import use
from modkit.diffusion.schedules import Cosine, Linear
from modkit.models import DenoisingGAN, Diffusion
from modkit.rng import Rng
from modkit.samplers import DDIM, Ancestral, sample
from modkit.types import Denoised, TensorType
from tests.mixture import ring

F64 = torch.float64
START = Rng(0).normal("start", torch.empty(3, 2, dtype=F64))


class Recorder:
    """A sampler that records its steps: each adds a draw, and its state counts them."""

    def times(self):
        return torch.tensor([1.0, 0.5, 0.25, 0.0], dtype=F64)

    def start(self, eps, t):
        return eps

    def step(self, denoise, x_t, t, s, state, rng):
        state = [*(state or []), (float(t), float(s))]
        return denoise(x_t, t).x_0 + rng.normal("eps", x_t) + len(state), state


def test_steps_times_states_and_draws():
    rng, seen = Rng(7), []

    def denoise(x_t, t):
        seen.append(float(t))
        return Denoised(0.5 * x_t)

    got = modkit.sample(Recorder(), denoise, START, rng=rng)
    x = START
    for index in range(3):
        x = 0.5 * x + Rng(7).at("sampler", index).normal("eps", x) + index + 1
    assert torch.equal(got, x) and seen == [1.0, 0.5, 0.25]
    assert modkit.sample is sample


def test_a_draw_asks_for_the_times_once(monkeypatch):
    asked, ask = [], Recorder.times
    monkeypatch.setattr(Recorder, "times", lambda sampler: asked.append(1) or ask(sampler))

    def denoise(x_t, t):
        return Denoised(0.5 * x_t)

    given = sample(Recorder(), denoise, START, times=ask(Recorder()), seed=3)
    assert not asked and torch.equal(given, sample(Recorder(), denoise, START, seed=3)) and len(asked) == 1
    x, slots = TensorType((2,)), {"network": use("mlp", width=4, depth=1), "sampler": lambda schedule, x: Recorder()}
    models = Diffusion(x, **slots), DenoisingGAN(x, **slots, z_dim=2, discriminator=use("mlp", width=4, depth=1))
    for num, model in enumerate(models, start=2):
        model.sample(3, seed=0)
        assert len(asked) == num


def test_a_seed_gives_the_noise_and_without_one_it_is_fresh():
    def run(**source):
        return sample(Recorder(), lambda x_t, t: Denoised(x_t), START, **source)

    assert torch.equal(run(seed=3), run(seed=3)) and torch.equal(run(seed=3), run(rng=Rng("sample", 3)))
    assert not torch.equal(run(seed=3), run(seed=4))
    assert not torch.equal(run(), run())
    with pytest.raises(ValueError, match=r"modkit.sample expects an rng or a seed, got both: Rng\(0, first=0\) and 3"):
        run(rng=Rng(0), seed=3)


@pytest.mark.wide(1)
@pytest.mark.parametrize("steps", [50, 1000])
def test_x_t_is_kept_in_float32_at_least(steps):
    schedule, seen = Cosine(), set()
    mixture = ring(3, 0.65, 0.1)

    def denoise(x_t, t):
        seen.add(x_t.dtype)
        return Denoised(mixture.denoiser(schedule)(x_t.double(), t).x_0.to(x_t.dtype))

    sampler = DDIM(schedule, TensorType((2,)), steps=steps)
    eps = Rng(0).normal("start", torch.empty(100, 2, dtype=torch.bfloat16))
    got = sample(sampler, denoise, eps)
    assert got.dtype == torch.bfloat16 and seen == {torch.float32}
    error = got.double() - sample(sampler, denoise, eps.double())
    assert float(error.square().mean().sqrt()) < 2e-3  # the result's own rounding; .06 and .32 in bfloat16 throughout


def test_gradients_flow_through_the_loop():
    x_t = START.clone().requires_grad_()
    x = sample(DDIM(Cosine(), TensorType((2,)), steps=3), lambda x, t: Denoised(0.5 * x), x_t)
    (gradient,) = torch.autograd.grad(x.sum(), x_t)
    torch.testing.assert_close(gradient, x.detach() / START, rtol=1e-12, atol=0)  # the denoiser is linear


def test_a_step_of_the_model_s_seed_draws_the_model_s_noise():
    table = Linear(num=5, beta_end=0.5)
    sampler = Ancestral(table, TensorType((2,)))
    rng = Rng("sample", 3)
    x_t = sampler.start(rng.normal("start", START), sampler.times()[0])
    with_rng = sample(sampler, lambda x, t: Denoised(0.5 * x), x_t, rng=rng)
    assert torch.equal(with_rng, sample(sampler, lambda x, t: Denoised(0.5 * x), x_t, seed=3))
