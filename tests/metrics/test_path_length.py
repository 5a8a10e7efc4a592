import math

import pytest
import torch
from torch import nn

from modkit import use
from modkit.features.random_conv import RandomConv
from modkit.losses.perceptual import Perceptual
from modkit.metrics.path_length import PathLength
from modkit.models import GAN, Autoencoder
from modkit.models.paths import walk
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import refusals


class Linear(nn.Module):
    """A generator that multiplies z by a matrix."""

    def __init__(self, z: TensorType, x: TensorType):
        super().__init__()
        self.map = nn.Linear(z.numel, x.numel, bias=False)

    def forward(self, z, cond):
        return self.map(z)


def make_gan(dim=6):
    torch.manual_seed(0)
    return GAN(TensorType((3,)), generator=Linear, discriminator="mlp", z_dim=dim).double()


def find_speed(model, a, b, t):
    """The squared speed of W z(t) on the arc from a to b, by its derivative."""
    w, one = model.generator.map.weight.detach(), lambda z: z / z.norm(dim=1, keepdim=True)
    angle = torch.acos((one(a) * one(b)).sum(1, keepdim=True))
    lengths = [z.norm(dim=1, keepdim=True) for z in (a, b)]
    arc = (torch.sin((1 - t) * angle) * one(a) + torch.sin(t * angle) * one(b)) / torch.sin(angle)
    turn = angle * (-torch.cos((1 - t) * angle) * one(a) + torch.cos(t * angle) * one(b)) / torch.sin(angle)
    length = (1 - t) * lengths[0] + t * lengths[1]
    return (((lengths[1] - lengths[0]) * arc + length * turn) @ w.T).square().sum(1)


@pytest.mark.parametrize("places", ["path", "ends"])
def test_it_is_the_mean_squared_speed_along_the_arcs(places):
    model, num = make_gan(), 50
    score = PathLength(num=num, places=places, eps=1e-6).compute(fake={"model": model})["path length"]
    rng = Rng("path length", Rng(0).draw_seed())
    a, b = (model.draw_source(num, "z", rng.at(end)) for end in ("a", "b"))
    t = rng.uniform("t", a.new_empty(num, 1)) if places == "path" else torch.zeros(num, 1, dtype=torch.float64)
    speeds = find_speed(model, a, b, t)
    assert score.value == pytest.approx(float(speeds.mean()), rel=1e-4)
    assert score.error == pytest.approx(float(speeds.std()) / math.sqrt(num), rel=1e-3)
    assert score.settings["source"] == "z" and model.training


def test_samples_are_decoded_in_float32_whatever_surrounds_the_call():
    """The fault: the difference of two near samples was computed in the caller's autocast."""
    model, metric = make_gan().float(), PathLength(num=20)
    plain = metric.compute(fake={"model": model})["path length"].value
    with torch.autocast("cpu", torch.bfloat16):
        assert metric.compute(fake={"model": model})["path length"].value == plain


def test_features_with_maps_measure_the_perceptual_distance():
    x = TensorType((1, 8, 8), range=(-1.0, 1.0))
    model = Autoencoder(x, encoder="mlp", decoder="mlp")
    score = PathLength(num=3, features="random-conv", eps=0.01).compute(fake={"model": model})["path length"]
    rng = Rng("path length", Rng(0).draw_seed())
    a, b = (model.draw_source(3, "z", rng.at(end)) for end in ("a", "b"))
    t = rng.uniform("t", a.new_empty(3, 1))
    near, far = (model.decode_source(walk(a, b, s, path="spherical").float(), "z") for s in (t, t + 0.01))
    expected = Perceptual(RandomConv(x))(near, far).mean() / 0.01**2
    assert score.value == pytest.approx(float(expected.detach()), rel=1e-3)


def test_a_path_keeps_the_class_that_is_drawn_for_it():
    """In w as well, both ends of a path are of one class; each path of each batch draws its own."""
    x, fields = TensorType((1, 8, 8), range=(-1.0, 1.0)), {"labels": TensorType((), classes=50)}
    style, seen = use("stylegan2", channels=4, style=6), []
    model = GAN(x, fields=fields, generator=style, discriminator="mlp", conditioner="label")
    conditioner = model.conditioner.forward
    model.conditioner.forward = lambda given, rng: (seen.append(given["labels"].tolist()), conditioner(given, rng))[1]
    PathLength(num=200, source="w").compute(fake={"model": model})
    assert [len(labels) for labels in seen] == [128] * 4 + [72] * 4
    assert seen[:4] == [seen[0]] * 4 and seen[4:] == [seen[4]] * 4 and seen[0][:72] != seen[4]


test_refuses = refusals(
    (lambda: PathLength(num=1), "PathLength expects num to be at least 2, got 1"),
    (lambda: PathLength(places="all"), "PathLength expects places to be 'path' or 'ends', got 'all'"),
    (
        lambda: PathLength(source="w").compute(fake={"model": make_gan()}),
        "PathLength expects a Model with the source 'w', got GAN, whose sources are: z",
    ),
)
