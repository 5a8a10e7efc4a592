import math

import pytest
import torch

from modkit.data.mixture import Grid, Ring
from modkit.rng import Rng
from modkit.types import Modes, TensorType
from tests.refusals import refusals


def whole(data, split="train"):
    batch = data.read(split, range(data.splits[split]), Rng(0))
    return batch.tensor, batch.fields["labels"]


@pytest.mark.smoke
def test_ring_centers():
    ring = Ring(modes=4, radius=3.0)
    expected = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-3.0, 0.0], [0.0, -3.0]])
    torch.testing.assert_close(ring.centers, expected, rtol=0, atol=1e-6)
    assert ring.x == TensorType((2,)) and ring.x.range is None and ring.levels is None
    assert ring.fields == {"labels": TensorType((), classes=4)}
    assert Ring().std ** 2 == pytest.approx(0.02)
    torch.testing.assert_close(Ring().centers.norm(dim=1), torch.full((8,), 2.0))


def test_grid_centers():
    axis = (-4.0, -2.0, 0.0, 2.0, 4.0)
    assert Grid().centers.tolist() == [[x, y] for x in axis for y in axis]
    assert Grid().std == 0.05
    assert Grid(side=2, spacing=1.0).centers.tolist() == [[-0.5, -0.5], [-0.5, 0.5], [0.5, -0.5], [0.5, 0.5]]


@pytest.mark.parametrize("data", [Ring(modes=3, std=0.3, num=1), Grid(side=2, num=1)], ids=["ring", "grid"])
def test_the_truth_is_the_modes_and_their_width(data):
    assert isinstance(data.truth, Modes)
    assert torch.equal(data.truth.centers, data.centers) and data.truth.std == data.std


@pytest.mark.parametrize("data", [Ring(), Grid()], ids=["ring", "grid"])
def test_frequencies_and_moments(data):
    x, labels = whole(data)
    num, modes = len(x), len(data.centers)
    counts = torch.bincount(labels, minlength=modes)
    # chi² of the counts has modes - 1 degrees of freedom: mean k, variance 2 k; six standard deviations.
    chi2 = ((counts - num / modes) ** 2 / (num / modes)).sum().item()
    assert chi2 < modes - 1 + 6 * math.sqrt(2 * (modes - 1))
    eps = ((x - data.centers[labels]) / data.std).double()
    tolerance = 6 / math.sqrt(num)
    torch.testing.assert_close(eps.mean(0), torch.zeros(2).double(), rtol=0, atol=tolerance)
    torch.testing.assert_close(eps.T.cov(), torch.eye(2).double(), rtol=0, atol=math.sqrt(2) * tolerance)
    within = (eps.norm(dim=1) < 3).double().mean().item()
    assert within == pytest.approx(1 - math.exp(-4.5), abs=6 * math.sqrt(0.0111 * 0.9889 / num))
    for mode in range(modes):  # noise and mode are independent
        assert eps[labels == mode].mean(0).abs().max() < 6 / math.sqrt(counts[mode].item())


def test_sample_i_is_a_function_of_split_and_i():
    few, many = Ring(num=1000), Ring(num=5000)
    x, labels = whole(few)
    again = many.read("train", range(1000), Rng(9, "other"))
    assert torch.equal(again.tensor, x) and torch.equal(again.fields["labels"], labels)
    picked = many.read("train", [999, 3, 3, 64], Rng(0))
    assert torch.equal(picked.tensor, x[[999, 3, 3, 64]])
    assert torch.equal(picked.fields["labels"], labels[[999, 3, 3, 64]])
    test, _ = whole(Ring(num_test=1000), "test")
    assert not torch.isclose(test, x).all(dim=1).any()
    assert len(x.unique(dim=0)) == len(x)


def test_key_tells_settings_apart():
    keys = {data.key for data in (Ring(), Ring(std=0.05), Ring(radius=4.0), Ring(num=10), Ring(num_test=10), Grid())}
    assert len(keys) == 6
    assert Ring().key == Ring().key


test_mistakes_are_named = refusals(
    (lambda: Ring(modes=0), "Ring expects modes to be in \\[1, 10000\\], got 0"),
    (lambda: Grid(std=-1.0), r"Grid expects std to be at least 0, got -1\.0"),
    (lambda: Ring(num=0), r"Ring expects num to be in \[1, 10000000\], got 0"),
    (lambda: Ring().read("valid", [0], Rng(0)), "Ring expects a split of .* got 'valid'"),
)
