import copy

import pytest
import torch
from torch import nn

import modkit
from modkit import build, use
from modkit.models import Diffusion
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.samplers import Sampling, SamplingStep, draw_start, report_step
from modkit.types import Denoised, TensorType
from tests.play import spec

MLP = {"network": use("mlp", width=16, depth=1)}
DIFFUSION = use("diffusion", **MLP, sampler=use("ddim", steps=3))
VAE = use(
    "autoencoder", encoder=use("mlp", width=16), decoder=use("mlp", width=16), bottleneck=use("gaussian", channels=4)
)
GAN = use("gan", generator=use("mlp", width=16, depth=1), discriminator=use("mlp", width=16, depth=1), z_dim=6)
CODES = use(
    "autoencoder",
    encoder=use("conv", channels=[4, 8]),
    decoder=use("conv", channels=[8, 4]),
    bottleneck=use("vq", num_codes=8),
)
PRIOR = use("transformer", width=8, depth=1, heads=2, dropout=0.0)
MODELS = {
    "diffusion": DIFFUSION,
    "denoising-gan": use("denoising-gan", **MLP, discriminator=use("mlp", width=16, depth=1), steps=2, z_dim=3),
    "gan": GAN,
    "autoencoder": VAE,
    "latent": use("latent", autoencoder=VAE, prior=DIFFUSION, scale=1.0),
    "latent of a gan": use("latent", autoencoder=VAE, prior=GAN, scale=1.0),
    "latent of a vae": use("latent", autoencoder=VAE, prior=VAE, scale=1.0),
    "nested": use(
        "latent", autoencoder=VAE, prior=use("latent", autoencoder=VAE, prior=DIFFUSION, scale=1.0), scale=1.0
    ),
}
SHAPES = {"gan": (6,), "latent of a gan": (6,), "diffusion": (1, 8, 8), "denoising-gan": (1, 8, 8)}
START = {"gan": ("z",), "latent of a gan": ("prior", "z"), "diffusion": ("start",), "denoising-gan": ("start",),
         "autoencoder": ("bottleneck", "prior"), "latent": ("prior", "start"), "nested": ("prior", "prior", "start"),
         "latent of a vae": ("prior", "bottleneck", "prior")}  # fmt: skip
"""The name under which each model draws its start noise."""


def make(name):
    model = build(spec(MODELS[name]))
    for parameter in model.parameters():  # some begin at zero
        nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def record(model, num, **options):
    steps = []
    return model.sample(num, seed=0, callback=steps.append, **options), steps


@pytest.mark.parametrize("name", MODELS)
def test_the_noise_that_a_seed_draws_can_be_given_and_other_noise_gives_other_samples(name):
    model = make(name)
    shape = SHAPES.get(name, (4,))
    assert model.start_noise == TensorType(shape) and model.start_noise.std == 1
    *path, drawn = START[name]
    noise = Rng("sample", 3).at(*path).normal(drawn, torch.empty(5, *shape))
    usual = model.sample(5, seed=3)
    assert torch.equal(model.sample(5, seed=3, start_noise=noise), usual)
    assert torch.equal(model.sample(5, seed=3, start_noise=noise.double()), usual)
    assert not torch.equal(model.sample(5, seed=3, start_noise=noise.flip(0)), usual)
    pieces = model.sample(4, seed=3, start_noise=noise[1:], first=1, batch_size=3)
    torch.testing.assert_close(pieces, usual[1:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "noise", "message"),
    [
        (
            "diffusion",
            torch.zeros(2, 1, 8, 8),
            r"sample expects start_noise of floats of shape \(3, 1, 8, 8\), got .* \(2,",
        ),
        ("latent", torch.zeros(3, 1, 8, 8), r"expects start_noise of floats of shape \(3, 4\), got .* \(3, 1, 8, 8\)"),
        ("gan", torch.zeros(3, 6, dtype=torch.int64), r"floats of shape \(3, 6\), got torch.int64 of shape \(3, 6\)"),
    ],
)
def test_noise_of_another_type_is_refused(name, noise, message):
    with pytest.raises(ValueError, match=message):
        make(name).sample(3, start_noise=noise)


def test_what_does_not_start_from_the_given_noise_refuses_it():
    """Models written before there was any: one that has none, and one that draws its own in place of its base's."""

    class Own(Model):
        def __init__(self):
            super().__init__()
            self.event = TensorType((3,))

        def draw(self, num, fields, cond, rng):
            return rng.normal("x", self.allocate(num, self.event))

    class Older(Diffusion):
        def draw(self, num, fields, cond, rng):
            return rng.normal("start", self.allocate(num, self.event))

    assert torch.equal(Own().sample(2, seed=0), Rng("sample", 0).normal("x", torch.empty(2, 3)))
    with pytest.raises(ValueError, match="Own starts from no noise of its own, got start_noise"):
        Own().sample(2, start_noise=torch.zeros(2, 3))
    older = Older(TensorType((3,)), network="mlp")
    assert older.sample(2, seed=0).shape == (2, 3)
    with pytest.raises(ValueError, match="Older drew its own start noise, and cannot be given any"):
        older.sample(2, start_noise=torch.zeros(2, 3))


@pytest.mark.parametrize("name", ["diffusion", "denoising-gan", "latent"])
def test_the_callback_sees_each_step_and_changes_no_sample(name):
    model = make(name)
    x, steps = record(model, 5, batch_size=3)
    assert torch.equal(x, model.sample(5, seed=0, batch_size=3))
    num = len(model.sampler.times() if name != "latent" else model.prior.sampler.times()) - 1
    assert [(step.index, step.num, step.first, len(step.x_t)) for step in steps] == [
        (index, num, first, rows) for first, rows in ((0, 3), (3, 2)) for index in range(num)
    ]
    assert all(step.x_0.shape == step.x_t.shape for step in steps) and not torch.equal(steps[0].x_t, steps[1].x_t)
    _, later = record(model, 2, first=3)
    assert [step.first for step in later] == [3] * num
    if name == "latent":
        assert torch.equal(model.autoencoder.decode(steps[num - 1].x_0, "continuous"), x[:3])


def test_the_first_prediction_of_a_step_is_that_from_its_x_t():
    calls, steps = [], []

    def denoise(x_t, t):
        calls.append(x_t)
        return Denoised(0.5 * x_t)

    sampler = modkit.samplers.Heun(modkit.find("schedule", "edm").load()(), TensorType((2,)), steps=4)
    x = modkit.sample(sampler, denoise, torch.ones(3, 2), seed=0, callback=steps.append)
    assert len(calls) == 7 and [step.index for step in steps] == [0, 1, 2, 3]
    assert all(torch.equal(step.x_0, 0.5 * step.x_t) for step in steps)
    assert torch.equal(steps[-1].x_0, x) and steps[-1].num == 4


class Older:
    """A sampler of the present contract that predicts nothing."""

    def __init__(self, schedule, x):
        self.schedule = schedule

    def times(self):
        return torch.tensor([1.0, 0.5, 0.0], dtype=torch.float64)

    def start(self, eps, t):
        return eps

    def step(self, denoise, x_t, t, s, state, rng):
        return x_t + rng.normal("eps", x_t), state


def test_a_sampler_need_not_know_of_the_callback():
    model = build(spec(use("diffusion", **MLP, sampler=use(Older))))
    noise = torch.zeros(2, 1, 8, 8)
    x, steps = record(model, 2, start_noise=noise)
    assert [(step.index, step.num, step.x_0) for step in steps] == [(0, 2, None), (1, 2, None)]
    rngs = [Rng("sample", 0).at("sampler", index) for index in range(2)]
    assert torch.equal(steps[0].x_t, noise)
    assert torch.equal(x, sum(rng.normal("eps", noise) for rng in rngs).clamp(-1, 1))


@pytest.mark.wide
def test_codes_are_shown_as_they_are_drawn():
    masked = build(
        spec(use("latent", autoencoder=CODES, prior=use("masked", network=PRIOR, sampler=use("maskgit", steps=3))))
    )
    x, steps = record(masked.prior, 2)
    assert [(step.index, step.num) for step in steps] == [(0, 3), (1, 3), (2, 3)]
    assert (steps[0].x_t == 8).all() and (steps[1].x_t == 8).any() and torch.equal(steps[2].x_0, x)
    raster = build(spec(use("latent", autoencoder=CODES, prior=use("autoregressive", network=PRIOR))))
    x, steps = record(raster.prior, 2)
    assert [(step.index, step.num, step.x_0) for step in steps] == [(index, 16, None) for index in range(16)]
    for index, step in enumerate(steps):
        assert torch.equal(step.x_t.flatten(1)[:, :index], x.flatten(1)[:, :index]) and step.x_t.shape == x.shape
    assert record(raster, 2)[1][0].num == 16
    with pytest.raises(ValueError, match="Latent starts from no noise of its own"):
        raster.sample(2, start_noise=torch.zeros(2, 4, 4))


def test_models_that_sample_in_one_go_report_nothing():
    assert record(make("gan"), 2)[1] == record(make("latent of a vae"), 2)[1] == []


def test_a_context_and_its_children_draw_what_the_rng_draws():
    plain, context = Rng(0, first=2).at("a"), Sampling(Rng(0, first=2), start_noise=torch.zeros(4, 1)).at("a")
    like = torch.empty(3, 1)
    assert (
        torch.equal(plain.normal("eps", like), context.normal("eps", like)) and context.draw_seed() == plain.draw_seed()
    )
    with pytest.raises(ValueError, match="each name to be drawn once"):
        context.at("b").normal("eps", like), context.at("b").normal("eps", like)
    assert not context.used and torch.equal(draw_start(context.rows(1), "start", like), torch.zeros(3, 1))
    assert context.used and Sampling(Rng(0)).used
    want = copy.deepcopy(plain).normal("start", like)
    assert torch.equal(draw_start(plain, "start", like), want)
    report_step(plain, 0, 1, like)
    seen = []
    report_step(Sampling(Rng(0, first=7), callback=seen.append).at("a").rows(1), 2, 3, like)
    assert seen == [SamplingStep(2, 3, like, None, 8)]
