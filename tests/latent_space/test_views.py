"""Views of a space whose maps are known, and of every Model that encodes."""

from functools import partial

import pytest
import torch
from PIL import Image

from modkit.bottlenecks import Gaussian
from modkit.data.corrupted import Corrupted
from modkit.data.digits import Digits
from modkit.data.noise import Noise
from modkit.latent_space import (
    Points,
    Space,
    decode_between,
    decode_path,
    decode_plane,
    draw_points,
    encode_split,
    find_classes,
    find_space,
    make_plane,
    reconstruct_pairs,
    save_grid,
    traverse_dimensions,
)
from modkit.models import GAN, Autoencoder, Bidirectional, Diffusion, Flow, Latent
from modkit.models.model import Model
from modkit.rng import Rng
from modkit.types import Batch, TensorType
from tests.refusals import refusals

X = TensorType((1, 8, 8), range=(-1.0, 1.0))
RNG = Rng(0)
MLP = {"encoder": "mlp", "decoder": "mlp"}
GENERATOR = {"generator": "mlp", "discriminator": "mlp"}


def use_identity(dim, *, normal=True, scale=1.0):
    """A space of vectors whose encoder multiplies by `scale` and whose decoder divides."""
    type = TensorType((dim,))
    model = Model.assemble()
    return Space(type, type, model, encode=lambda x, _: x * scale, decode=lambda z, _: z / scale, normal=normal)


def test_the_plane_is_at_normal_quantiles_or_among_given_latents():
    assert torch.equal(decode_plane(use_identity(2), 5), make_plane(5))
    among = torch.tensor([[3.0, 0.0], [5.0, 4.0]])
    plane = decode_plane(use_identity(2, normal=False), 4, among=among)
    torch.testing.assert_close(plane, among.mean(0) + among.std(0) * make_plane(4))


def test_a_traversal_changes_one_dimension_a_row():
    z = torch.tensor([7.0, 8.0, 9.0])
    rows = traverse_dimensions(use_identity(3), z, 3, span=2.0).view(3, 3, 3)
    for index in range(3):
        assert rows[index, :, index].tolist() == [-2.0, 0.0, 2.0]
        others = [one for one in range(3) if one != index]
        assert torch.equal(rows[index][:, others], z[others].expand(3, 2))
    around = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([2.0, 3.0, 4.0])
    assert traverse_dimensions(use_identity(3), z, 2, span=1.0, around=around).view(3, 2, 3)[2, :, 2].tolist() == [
        -3,
        5,
    ]


def test_paths_and_pairs_are_rows():
    a, b = torch.tensor([[0.0], [10.0]]), torch.tensor([[4.0], [30.0]])
    ends = Batch(a, {}), Batch(b, {})
    assert decode_path(use_identity(1, scale=3.0), ends, 3).flatten().tolist() == [0, 2, 4, 10, 20, 30]
    assert reconstruct_pairs(use_identity(1, scale=2.0), ends[0]).flatten().tolist() == [0, 0, 10, 10]


def test_a_space_is_that_of_the_model_s_first_continuous_latent():
    autoencoder = Autoencoder(X, **MLP)
    x = Digits(size=8).read("test", range(300), RNG).tensor
    space = find_space(autoencoder)
    z = autoencoder.encode(x, "continuous").detach()
    torch.testing.assert_close(space.encode(x), z, rtol=1e-5, atol=1e-6)  # in batches
    torch.testing.assert_close(space.decode(z), autoencoder.decode(z, "continuous").detach(), rtol=1e-5, atol=1e-6)
    assert space.normal and autoencoder.training
    prior = Diffusion(autoencoder.latents["continuous"], network="mlp")
    outer = find_space(Latent(X, autoencoder=autoencoder, prior=prior))
    torch.testing.assert_close(outer.encode(x), z, rtol=1e-5, atol=1e-6)
    assert not find_space(Autoencoder(X, **MLP, bottleneck="identity")).normal


def test_a_split_is_encoded_with_its_fields():
    data = Digits(size=8)
    space = find_space(Autoencoder(X, **MLP))
    found = encode_split(space, data)
    batch = data.read("test", range(360), RNG)
    assert torch.equal(found.fields["labels"], batch.fields["labels"])
    torch.testing.assert_close(found.latents, space.encode(batch.tensor), rtol=1e-5, atol=1e-6)
    assert find_classes(data) == "labels"


def test_a_conditional_model_is_given_the_fields_of_its_samples():
    data = Digits(size=8)
    model = Autoencoder(X, fields=data.fields, **MLP, bottleneck=partial(Gaussian, channels=2), conditioner="label")
    batch = data.read("test", range(6), RNG)
    space, fields = find_space(model), batch.fields
    z = model.eval().encode(batch.tensor, "continuous", fields=fields).detach()
    expected = model.decode(z, "continuous", fields=fields).detach()
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    close(encode_split(space, data, num=6).latents, z)
    close(reconstruct_pairs(space, batch)[1::2], expected)
    ends = batch.rows(slice(0, 3)), batch.rows(slice(3, 6))
    assert len(set(fields["labels"].tolist())) > 1
    close(decode_path(space, ends, 4)[::4], expected[:3])
    one = batch.rows(slice(2, 3)).fields
    labels = one["labels"].expand(4)
    close(
        decode_plane(space, 2, fields=one),
        model.decode(make_plane(2), "continuous", fields={"labels": labels}).detach(),
    )
    row = traverse_dimensions(space, z[2], 3, span=2.0, fields=one)[1]
    moved = z[2:3].clone()
    moved[:, 0] = 0
    close(row[None], model.decode(moved, "continuous", fields=one).detach())


def test_missing_fields_are_drawn_once_for_a_path_a_traversal_or_a_plane():
    """The fault: they were drawn for each point, so that classes changed along a path."""
    model = GAN(X, fields={"labels": TensorType((), classes=50)}, **GENERATOR, conditioner="label", z_dim=2)
    space = find_space(model)
    one, two = space.complete(1), space.complete(2)
    ends = space.draw(2), space.draw(2, first=2)
    assert torch.equal(decode_between(space, ends, 5), decode_between(space, ends, 5, fields=two))
    rows = decode_between(space, ends, 3).view(2, 3, *X.shape)
    torch.testing.assert_close(rows[:, 2], space.decode(ends[1], two))
    assert torch.equal(traverse_dimensions(space, ends[0][0], 3), traverse_dimensions(space, ends[0][0], 3, fields=one))
    assert torch.equal(decode_plane(space, 3), decode_plane(space, 3, fields=one))


def test_an_encoder_that_reads_a_field_is_given_it_by_every_view_and_below_a_prior():
    data = Corrupted(data=partial(Digits, size=8), corruption=Noise)
    parts = {**MLP, "bottleneck": partial(Gaussian, channels=2), "input": "noisy"}
    model = Autoencoder(X, fields=data.fields, **parts)
    prior = Diffusion(model.latents["continuous"], network="mlp")
    batch = data.read("test", range(6), Rng(0, 0))
    noisy = batch.fields["noisy"]
    assert not torch.equal(noisy, batch.tensor)
    plain = Autoencoder(X, **{**parts, "input": None})
    plain.load_state_dict(model.state_dict())
    z = plain.eval().encode(noisy, "continuous").detach()
    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    for one in (model, Latent(X, fields=data.fields, autoencoder=model, prior=prior)):
        space = find_space(one)
        close(encode_split(space, data, num=6).latents, z)
        close(reconstruct_pairs(space, batch)[1::2], plain.decode(z, "continuous").detach())
        assert torch.equal(reconstruct_pairs(space, batch)[::2], batch.tensor)
        ends = batch.rows(slice(0, 3)), batch.rows(slice(3, 6))
        close(decode_path(space, ends, 4)[3::4], plain.decode(z[3:], "continuous").detach())
        rows = traverse_dimensions(space, z[0], 3, fields=batch.rows(slice(0, 1)).fields)
        assert rows.shape == (6, *X.shape)


@pytest.mark.wide(1)
@pytest.mark.parametrize("ending", ["png", "svg"])
def test_files_are_pictures(ending, tmp_path):
    path = tmp_path / "folder" / f"grid.{ending}"
    save_grid(path, torch.zeros(6, 1, 8, 8), X, 3)
    points = Points(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), torch.arange(20) % 3)
    drawn = tmp_path / f"points.{ending}"
    draw_points(drawn, {"a": points, "b": Points(points.z)})
    if ending == "png":
        with Image.open(path) as grid, Image.open(drawn) as figure:
            assert grid.width / grid.height == pytest.approx(1.5, rel=0.02) and figure.width == 2 * figure.height
    else:
        assert path.read_text().startswith("<svg") and "data:image/png;base64," in path.read_text()
        again = tmp_path / "again.svg"
        draw_points(again, {"a": points, "b": Points(points.z)})
        assert drawn.read_text() == again.read_text() and drawn.read_text().count("<use ") >= 40


VQ = Autoencoder(X, encoder="mlp", decoder="mlp", bottleneck="fsq")
MAP = Autoencoder(X)
PRIOR = Latent(X, autoencoder=Autoencoder(X, **MLP), prior=GAN, scale=1.0)
NO_HINT = r"has \d+$"
test_refuses = refusals(
    (lambda: find_space(VQ, "codes"), "'codes' to be one continuous tensor, got Autoencoder with .*codes"),
    (
        lambda: decode_plane(find_space(MAP)),
        r"a plane expects a latent of 2 dimensions, got 4×.*bottleneck\.channels=2",
    ),
    (lambda: decode_plane(find_space(GAN(X, **GENERATOR))), r"a vector of two comes from model\.z_dim=2$"),
    (lambda: decode_plane(find_space(PRIOR, "z")), r"a vector of two comes from model\.prior\.z_dim=2$"),
    (
        lambda: decode_plane(find_space(Bidirectional(X, encoder="mlp"))),
        r"a vector of two comes from encoder=mlp bottleneck\.channels=2$",
    ),
    (lambda: decode_plane(find_space(Flow(X))), NO_HINT),
    (lambda: decode_plane(use_identity(2, normal=False)), "expects latents `among` which the plane lies"),
    (lambda: traverse_dimensions(use_identity(65), torch.zeros(65)), "at most 64 dimensions, got .* which has 65"),
    (lambda: traverse_dimensions(use_identity(2), torch.zeros(2), 1), "at least 2 steps and a positive span, got 1"),
    (lambda: encode_split(use_identity(2), Digits(size=8), num=361), r"num in \[1, 360\]"),
    (lambda: find_classes(Digits(size=8), "color"), "one of: labels; got 'color'"),
    (lambda: save_grid("a.gif", torch.zeros(1, 1, 8, 8), X), r"\.png or \.svg, got a\.gif"),
    (lambda: draw_points("a.png", {"": Points(torch.zeros(2, 3))}), r"points \(n, 2\), got \[\(2, 3\)\]"),
    (lambda: draw_points("a.png", {"": Points(torch.zeros(50, 2), torch.arange(50))}), "at most 40 classes, got 50"),
)
