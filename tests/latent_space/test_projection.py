import pytest
import torch

from modkit.features.random_conv import RandomConv
from modkit.latent_space import Space, find_space, measure_in_features, project
from modkit.latent_space.projection import measure_squares
from modkit.models import GAN, Autoencoder
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import refusals

X = TensorType((1, 8, 8), range=(-1.0, 1.0))
NETWORKS = {"generator": "mlp", "discriminator": "mlp"}


def make_linear(matrix, **options):
    """A space that decodes by a matrix."""
    type = TensorType((matrix.shape[1],))
    return Space(
        type,
        TensorType((matrix.shape[0],)),
        Model.assemble(),
        encode=None,
        decode=lambda z, _: z @ matrix.T,
        draw=lambda num, rng, fields: rng.normal("z", torch.empty(num, matrix.shape[1])),
        normal=True,
        **options,
    )


def test_the_nearest_sample_of_a_linear_map_is_that_of_least_squares():
    matrix = Rng(0).normal("m", torch.empty(6, 3))
    x = Rng(1).normal("x", torch.empty(5, 6))
    found = project(make_linear(matrix), x, steps=300)
    solved = torch.linalg.lstsq(matrix, x.T)
    torch.testing.assert_close(found.latents, solved.solution.T, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.samples, found.latents @ matrix.T)
    torch.testing.assert_close(found.distances, (found.samples - x).square().mean(1))


def test_without_steps_it_is_the_nearest_of_the_draws():
    space = make_linear(torch.eye(2))
    x = torch.tensor([[0.3, -0.2], [1.0, 1.0]])
    found = project(space, x, steps=0, starts=10)
    drawn = space.draw(20).view(2, 10, 2)
    nearest = (drawn - x[:, None]).square().sum(2).argmin(1)
    assert torch.equal(found.latents, drawn[torch.arange(2), nearest])


def test_distances_are_taken_in_batches():
    space, sizes = make_linear(torch.eye(2)), []

    def distance(made, x):
        sizes.append(len(made))
        return (made - x).square().mean(1)

    x = Rng(0).normal("x", torch.empty(9, 2))
    found = project(space, x, steps=0, starts=100, distance=distance)
    assert max(sizes) <= 256 and torch.equal(found.latents, project(space, x, steps=0, starts=100).latents)


def test_draws_are_held_a_block_at_a_time():
    """The fault: all that was drawn for all samples was decoded at once, beside as many copies of the samples."""
    model = GAN(X, fields={"labels": TensorType((), classes=4)}, conditioner="label", **NETWORKS, z_dim=3)
    space, held = find_space(model), []
    draw, decode = space.draw, space.decode
    space.draw = lambda num, **options: held.append(num) or draw(num, **options)
    space.decode = lambda z, fields: held.append(len(z)) or decode(z, fields)
    x = torch.rand(7, 1, 8, 8) * 2 - 1
    fields = {"labels": torch.arange(7) % 4}
    found = project(space, x, steps=0, starts=100, fields=fields)
    assert max(held) <= 256 and sum(held) > 1400
    z = draw(700)
    made = decode(z, {"labels": fields["labels"].repeat_interleave(100)}).view(7, 100, -1)
    nearest = (made - x.view(7, 1, -1)).square().mean(2).argmin(1)
    assert torch.equal(found.latents, z.view(7, 100, 3)[torch.arange(7), nearest])


@pytest.mark.wide
def test_projections_come_nearer_with_steps_in_pixels_and_in_features():
    torch.manual_seed(0)
    space = find_space(GAN(X, **NETWORKS, z_dim=8))
    x = space.decode(space.draw(4, seed=5))
    distance = measure_in_features(RandomConv(X))
    for options in ({}, {"distance": distance}):
        begun, ended = (project(space, x, steps=steps, starts=4, **options).distances for steps in (0, 40))
        assert (ended < 0.3 * begun).all()
    assert distance(x, x).abs().max() == 0


def test_weights_get_no_gradient_and_modes_are_restored():
    model = GAN(X, **NETWORKS, z_dim=4)
    space = find_space(model)
    project(space, space.decode(space.draw(2)), steps=2, starts=2)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_encodes_begins_where_the_sample_is_encoded_to():
    model = Autoencoder(X, encoder="mlp", decoder="mlp")
    space, x = find_space(model), torch.rand(3, 1, 8, 8) * 2 - 1
    found = project(space, x, steps=0, starts=0)
    torch.testing.assert_close(found.latents, space.encode(x))
    assert (project(space, x, steps=20, starts=0).distances < found.distances).all()


def test_without_a_known_prior_it_begins_at_the_encoding_unless_told():
    """The fault: it drew, and so did `modkit latent --project`."""
    model = Autoencoder(X, encoder="mlp", decoder="mlp", bottleneck="identity")
    space, x = find_space(model), torch.rand(3, 1, 8, 8) * 2 - 1
    assert not space.draws
    assert torch.equal(project(space, x, steps=3).latents, project(space, x, steps=3, starts=0).latents)
    linear = make_linear(torch.eye(2))
    assert torch.equal(*(project(linear, x[:, 0, 0, :2], steps=0, **one).latents for one in ({}, {"starts": 64})))


def test_missing_fields_are_drawn_once_for_all_rows():
    """The fault: they were drawn anew for every 256 rows that were decoded, and for the draws of a start, so that
    samples were of other classes than their latents were found for."""
    model = GAN(
        X, fields={"labels": TensorType((), classes=4)}, conditioner="label", discriminator="mlp", generator="mlp"
    )
    space, x = find_space(model), torch.rand(300, 1, 8, 8) * 2 - 1
    fields = space.complete(300)
    assert torch.equal(fields["labels"], model.complete(300, {}, Rng("source"))["labels"])
    found, given = project(space, x, steps=1, starts=2), project(space, x, steps=1, starts=2, fields=fields)
    assert torch.equal(found.latents, given.latents) and torch.equal(found.samples, given.samples)
    assert torch.equal(found.samples, space.decode(found.latents))
    torch.testing.assert_close(found.distances, measure_squares(found.samples, x))
    torch.testing.assert_close(found.samples, space.decode_with_gradients(found.latents).detach())


test_refuses = refusals(
    (
        lambda: project(make_linear(torch.eye(2)), torch.zeros(1, 2), lr=0.0),
        "project expects lr to be above 0, got 0.0",
    ),
    (lambda: project(make_linear(torch.eye(2)), torch.zeros(1, 2), starts=0), "expects a Model that encodes"),
)
