"""The noise that Models decode: drawn, decoded as `sample` does, and differentiated."""

from functools import partial

import pytest
import torch

from modkit import use
from modkit.latent_space import decode_between, find_space, project
from modkit.models import GAN, Autoencoder, Bidirectional, Diffusion, Flow, Latent
from modkit.rng import Rng
from modkit.samplers import DDIM, Heun
from modkit.types import TensorType
from tests.refusals import refusals

X = TensorType((2,), std=1.0)
MLP = {"encoder": "mlp", "decoder": "mlp"}


def make_latent():
    autoencoder = Autoencoder(TensorType((6,)), **MLP)
    inner = autoencoder.latents["continuous"]
    return Latent(TensorType((6,)), autoencoder=autoencoder, prior=Autoencoder(inner, **MLP), scale=0.5)


MODELS = {
    "z of a GAN": lambda: GAN(X, z_dim=3),
    "base of a flow": lambda: Flow(X),
    "x_T": lambda: Diffusion(X, network="mlp", sampler=partial(DDIM, steps=3)),
    "z of a VAE": lambda: Autoencoder(X, **MLP),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_source_is_decoded_to_the_sample_that_starts_from_it(name):
    model = MODELS[name]().eval()
    ((source, type),) = model.sources.items()
    z = model.draw_source(400, source, Rng(0))
    assert z.shape == (400, *type.shape)
    assert float(z.mean()) == pytest.approx(0, abs=0.1) and float(z.std()) == pytest.approx(1, abs=0.1)
    torch.testing.assert_close(model.decode_source(z, source), model.sample(400, seed=9, start_noise=z))


@pytest.mark.wide(1)
@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_the_source_as_differences_say(name):
    model = MODELS[name]().eval().double()
    source = next(iter(model.sources))
    with torch.no_grad():  # networks of denoisers begin as zero
        for number, parameter in enumerate(model.parameters()):
            parameter.add_(Rng(number).normal("w", parameter).mul(0.1))
    z = model.draw_source(2, source, Rng(0)).requires_grad_()
    assert z.dtype == torch.float64
    torch.autograd.gradcheck(lambda z: model.decode_source(z, source), z)


@pytest.mark.wide(1)
@pytest.mark.parametrize("make", [GAN, partial(Bidirectional, encoder="mlp", game="veegan")])
def test_styles_are_a_source_of_a_generator_that_states_their_type(make):
    image = TensorType((1, 8, 8), range=(-1.0, 1.0))
    style = use("stylegan2", channels=4, style=6, truncation=0.5)
    fields = {"labels": TensorType((), classes=3)}
    model = make(image, fields=fields, generator=style, discriminator="mlp", conditioner="label").eval().double()
    assert model.sources["w"] == TensorType((6,))
    w, z = (model.draw_source(5, name, Rng(0)) for name in ("w", "z"))
    labels = model.complete(5, {}, Rng(0))
    expected = model.generator.styles(z, model.conditioner(labels, None))
    torch.testing.assert_close(w, expected)
    torch.testing.assert_close(model.decode_source(w, "w"), model.decode_source(z, "z", fields=labels))
    given = {"labels": torch.tensor([0, 1, 2, 1, 0])}
    w = model.draw_source(5, "w", Rng(0), fields=given)
    torch.testing.assert_close(model.decode_source(w, "w"), model.decode_source(z, "z", fields=given))
    space = find_space(model, "w")
    torch.testing.assert_close(space.draw(5, fields=given), model.draw_source(5, "w", Rng("latents", 0), fields=given))
    assert not space.normal and space.type == model.sources["w"]
    torch.testing.assert_close(space.draw(5, seed=1), model.draw_source(5, "w", Rng("latents", 1)))
    ends = space.draw(2)
    between = decode_between(space, (ends[:1], ends[1:]), 3)
    torch.testing.assert_close(between[1:2], space.decode(ends.mean(0, keepdim=True)))
    target = space.decode(space.draw(1, seed=7))
    begun, found = (project(space, target, steps=steps, starts=8) for steps in (0, 40))
    assert found.latents.shape == (1, 6) and float(found.distances) < 0.3 * float(begun.distances)


def test_a_prior_s_source_is_decoded_to_means_of_the_prior():
    model = make_latent().eval()
    z = model.draw_source(5, "z", Rng(0))
    expected = model.autoencoder.decode(model.scale.invert(model.prior.decode(z, "continuous")), "continuous")
    torch.testing.assert_close(model.decode_source(z, "z"), expected)
    assert (model.sample(5, seed=0, start_noise=z) - expected).abs().max() > 1e-3, "as a latent it has noise"


def test_only_samplers_that_draw_nothing_decode_noise():
    model = Diffusion(X, network="mlp")
    assert list(model.sources) == ["x_T"]
    assert not model.with_parts(sampler="ancestral").sources
    assert DDIM(model.schedule, X).deterministic and not DDIM(model.schedule, X, eta=0.5).deterministic
    assert Heun(model.schedule, X).deterministic and not Heun(model.schedule, X, churn=2.0).deterministic


test_refuses = refusals(
    (lambda: GAN(X).draw_source(1, "w", Rng(0)), "GAN expects a source, one of: z; got 'w'"),
    (lambda: GAN(X).decode_source(torch.zeros(1, 64), "w"), "GAN expects a source, one of: z; got 'w'"),
)
