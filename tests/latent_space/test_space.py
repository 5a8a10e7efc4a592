"""Spaces of noise: what Models that do not encode are walked in."""

import pytest
import torch

from modkit.latent_space import decode_between, decode_plane, find_space, interpolate, make_plane
from modkit.models import GAN, Autoencoder, Bidirectional, Diffusion, Flow, Latent
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import check_refusal, refusals

X = TensorType((1, 8, 8), range=(-1.0, 1.0))
MLP = {"encoder": "mlp", "decoder": "mlp"}
NETWORKS = {"generator": "mlp", "discriminator": "mlp"}


def test_the_space_of_a_model_that_does_not_encode_is_its_first_source():
    model = GAN(X, **NETWORKS, z_dim=5)
    space = find_space(model)
    z = space.draw(300, seed=1)
    assert space.normal and not space.encodes and model.training
    torch.testing.assert_close(space.decode(z), model.eval().sample(300, seed=0, start_noise=z))  # in batches
    assert torch.equal(space.draw(10, seed=1, first=290), z[290:])
    assert abs(float(z.std()) - 1) < 0.1


@pytest.mark.wide
def test_the_noise_of_a_model_that_encodes_is_asked_for_by_name():
    flow = Flow(TensorType((2,)))
    assert find_space(flow).encodes and find_space(flow, "base").encodes  # one latent that is both
    autoencoder = Autoencoder(X, **MLP)
    latent = Latent(
        X, autoencoder=autoencoder, prior=Diffusion(autoencoder.latents["continuous"], network="mlp"), scale=1.0
    )
    assert find_space(latent).encodes
    noise = find_space(latent, "x_T")
    z = noise.draw(2)
    torch.testing.assert_close(noise.decode(z), latent.eval().sample(2, seed=0, start_noise=z))


def test_spherical_paths_between_draws_keep_their_length():
    space = find_space(GAN(X, **NETWORKS))
    a, b = (torch.nn.functional.normalize(space.draw(20, seed=seed)) * 8 for seed in (0, 1))
    path = interpolate(a, b, 9, path="spherical")
    assert (path.norm(dim=2) - 8).abs().max() < 1e-5
    assert (path.mean(1).norm(dim=1) < 7.9).all(), "the points of a path differ"
    shown = decode_between(space, (a, b), 9, path="spherical")
    torch.testing.assert_close(shown[9:18], space.decode(path[1]))


def test_the_plane_of_a_source_of_two_dimensions():
    space = find_space(GAN(X, **NETWORKS, z_dim=2))
    torch.testing.assert_close(decode_plane(space, 3), space.decode(make_plane(3)))


@pytest.mark.parametrize("given", [False, True])
def test_a_conditional_generator_is_given_fields_or_draws_them_alike(given):
    model = GAN(X, fields={"labels": TensorType((), classes=3)}, **NETWORKS, conditioner="label")
    fields = {"labels": torch.tensor([0, 1, 2, 0]), "other": torch.zeros(4)} if given else {}
    space = find_space(model)
    z = space.draw(4)
    first = space.decode(z, fields)
    assert torch.equal(first, space.decode(z, fields))
    if given:
        expected = model.eval().sample(4, seed=0, start_noise=z, labels=fields["labels"])
        torch.testing.assert_close(first, expected)


@pytest.mark.parametrize("categories", [0, 3])
def test_what_a_bidirectional_model_encodes_is_drawn_as_its_noise_is(categories):
    """The fault: with categories or noise that is not encoded, it was said to have no prior."""
    model = Bidirectional(X, encoder="mlp", game="infogan", categories=categories, noise=5)
    space = find_space(model)
    z = space.draw(6, seed=1)
    assert torch.equal(z, model.draw_source(6, "z", Rng("latents", 1))[:, : space.type.numel])
    assert space.encodes and space.normal == (not categories) and torch.equal(space.draw(2, seed=1, first=4), z[4:])
    assert (z[:, 4:].sum(1) == 1).all() if categories else z.shape == (6, 4)


def test_a_source_of_a_prior_that_has_the_name_of_a_latent_is_qualified():
    """The fault: it could not be reached."""
    autoencoder = Bidirectional(X, encoder="mlp")
    model = Latent(X, autoencoder=autoencoder, prior=GAN(autoencoder.latents["z"], z_dim=3), scale=1.0)
    assert find_space(model).encodes and find_space(model, "z").type.shape == (4,)
    noise = find_space(model, "prior.z")
    z = noise.draw(2)
    assert z.shape == (2, 3)
    torch.testing.assert_close(noise.decode(z), model.eval().sample(2, seed=0, start_noise=z))
    check_refusal(r"got Bidirectional with z \(.*4.*\), prior\.z \(noise\)", find_space, model, "w")
    other = Autoencoder(X, **MLP)
    plain = Latent(X, autoencoder=other, prior=Diffusion(other.latents["continuous"], network="mlp"), scale=1.0)
    assert find_space(plain, "prior.x_T").type == find_space(plain, "x_T").type


test_refuses = refusals(
    (lambda: find_space(GAN(X, **NETWORKS)).encode(torch.zeros(1, 1, 8, 8)), "expects a Model that encodes, got GAN"),
    (lambda: find_space(GAN(X, **NETWORKS), "w"), r"'w' to be one continuous tensor, got GAN with z \(noise\)"),
    (
        lambda: find_space(Autoencoder(X, **MLP, bottleneck="identity")).draw(1),
        "latents to draw expect a prior, got Autoencoder, which has none",
    ),
    (
        lambda: find_space(Diffusion(X, network="mlp", sampler="ancestral")),
        "expects a Model that encodes or decodes noise, got Diffusion",
    ),
)
