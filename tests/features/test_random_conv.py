import math

import pytest
import torch
from torch.nn import functional as F

from modkit.features.random_conv import RandomConv
from modkit.rng import Rng
from modkit.types import TensorType
from tests.features.checks import check_extractor
from tests.refusals import refusals


@pytest.mark.smoke
def test_it_is_the_equation():
    part = RandomConv(TensorType((2, 9, 7), range=(0, 1)), seed=3, dim=8)
    x = torch.rand(3, 2, 9, 7)
    features = check_extractor(part, x)

    shapes = {"levels.0.weight": (2, 2, 3, 3), "levels.1.weight": (4, 2, 3, 3), "levels.2.weight": (8, 4, 3, 3)}
    y, maps = 2 * x.double() - 1, []
    for level, (name, shape) in enumerate(shapes.items()):
        weight = Rng(3, "random-conv").normal(name, torch.empty(shape)).double() * math.sqrt(2 / math.prod(shape[1:]))
        y = F.conv2d(y, weight, padding=1, stride=2 if level else 1)
        y = y * torch.sigmoid(y)
        maps.append(y)
    project = Rng(3, "random-conv").normal("project.weight", torch.empty(8, 128)).double() / 8
    vector = F.adaptive_avg_pool2d(y, 4).flatten(1) @ project.T
    torch.testing.assert_close(features.vector.double(), vector, rtol=1e-4, atol=1e-5)
    for ours, want in zip(features.maps, maps):
        torch.testing.assert_close(ours.double(), want, rtol=1e-4, atol=1e-5)


def test_the_seed_alone_decides():
    x = TensorType((1, 8, 8), range=(-1, 1))
    torch.manual_seed(0)
    first = RandomConv(x)
    torch.manual_seed(1)
    again, other = RandomConv(x), RandomConv(x, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    assert first.key() == again.key() != other.key()
    assert (first.label, other.label) == ("random-conv:0", "random-conv:1")
    assert first.key() != RandomConv(x, dim=64).key()


def test_any_size_and_unbounded_images():
    part = RandomConv(TensorType((1, 8, 8)), dim=16)
    for shape in ((1, 1), (3, 2), (16, 33)):
        assert part(torch.randn(2, 1, *shape)).vector.shape == (2, 16)


def test_meta_builds():
    with torch.device("meta"):
        part = RandomConv(TensorType((1, 8, 8)))
        assert part(torch.empty(2, 1, 8, 8)).vector.shape == (2, 128)


test_refusals_say_what_was_expected_and_got = refusals(
    (TensorType((1, 8, 8)), 0, "RandomConv expects dim to be at least 1, got 0"),
    (TensorType((1, 8, 8)), 6, "RandomConv expects dim to be a multiple of 4, got 6"),
    (TensorType((2,)), 8, "RandomConv expects images"),
    of=lambda x, dim: RandomConv(x, dim=dim),
)
