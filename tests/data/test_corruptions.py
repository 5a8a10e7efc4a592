import pickle

import pytest
import torch

from modkit.data.corruptions import LowRes, Mask
from modkit.rng import Rng
from modkit.types import TensorType
from tests.refusals import refusals

IMAGE = TensorType((2, 8, 6), range=(0.0, 1.0))


def spans(mask):
    """First and last hidden position along each axis, and that all between them is hidden."""
    found = []
    for one in mask[:, 0].bool():
        where = one.nonzero()
        low, high = where.min(0).values, where.max(0).values
        inside = torch.zeros_like(one)
        inside[tuple(slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist()))] = True
        assert torch.equal(inside, one)
        found.append((*low.tolist(), *high.tolist()))
    return torch.tensor(found)


@pytest.mark.parametrize(("range_", "middle"), [((0.0, 1.0), 0.5), ((-1.0, 1.0), 0.0), (None, 0.0)])
def test_what_is_hidden_is_the_middle_and_the_rest_is_x(range_, middle):
    part = Mask(TensorType((2, 8, 6), range=range_))
    assert part.fields == {"masked": TensorType((2, 8, 6), range=range_), "mask": TensorType((1, 8, 6), range=(0, 1))}
    x = torch.randn(50, 2, 8, 6)
    made = part(x, Rng(0))
    mask = made["mask"]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(made["masked"], x * (1 - mask) + middle * mask)
    assert made["masked"].dtype == mask.dtype == torch.float32
    assert part(x.double(), Rng(0))["mask"].dtype == torch.float64


def test_boxes_have_every_size_between_the_ends_and_lie_anywhere():
    mask = Mask(IMAGE, regions=["box"])(torch.zeros(6000, 2, 8, 6), Rng(0))["mask"]
    top, left, bottom, right = spans(mask).unbind(1)
    for first, last, size, least, most in ((top, bottom, 8, 2, 6), (left, right, 6, 2, 4)):
        sides = (last - first + 1).bincount(minlength=size + 1)
        assert sides[:least].sum() == sides[most + 1 :].sum() == 0
        expected = 6000 / (most - least + 1)
        assert ((sides[least : most + 1] - expected).abs() < 5 * expected**0.5).all()
        places = first[last - first + 1 == least].bincount(minlength=size - least + 1)
        expected = places.sum() / (size - least + 1)
        assert ((places - expected).abs() < 5 * expected**0.5).all()


def test_a_half_is_a_side_of_an_axis():
    mask = Mask(TensorType((1, 5, 4)), regions=["half"])(torch.zeros(4000, 1, 5, 4), Rng(0))["mask"]
    kinds, counts = spans(mask).unique(dim=0, return_counts=True)
    assert kinds.tolist() == [[0, 0, 2, 3], [0, 0, 4, 1], [0, 2, 4, 3], [2, 0, 4, 3]]
    assert ((counts - 1000).abs() < 5 * 27.4).all()


@pytest.mark.parametrize("size", [(9,), (4, 1), (3, 4, 2)])
def test_something_is_hidden_of_any_rank_and_regions_are_drawn_evenly(size):
    mask = Mask(TensorType((1, *size)), smallest=0.3, largest=0.3)(torch.zeros(2000, 1, *size), Rng(0))["mask"]
    hidden = mask.flatten(1).sum(1)
    assert hidden.min() >= 1
    if size == (9,):
        assert abs((hidden == 3).float().mean() - 0.5) < 0.06 and set(hidden.tolist()) == {3.0, 5.0}  # sd .011


def test_a_row_s_mask_is_its_own():
    part, x = Mask(IMAGE), torch.randn(9, 2, 8, 6)
    assert torch.equal(part(x[4:], Rng(0).rows(4))["mask"], part(x, Rng(0))["mask"][4:])


def test_low_res_is_the_mean_of_each_block():
    part = LowRes(IMAGE, factor=2)
    assert part.fields == {"low_res": TensorType((2, 4, 3), range=(0.0, 1.0))}
    x = torch.randn(3, 2, 8, 6, dtype=torch.float64)
    small = part(x, Rng(0))["low_res"]
    for i in range(4):
        for j in range(3):
            torch.testing.assert_close(small[:, :, i, j], x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((2, 3)))
    low = LowRes(TensorType((1, 12)), factor=3)(torch.arange(12.0).view(1, 1, 12), Rng(0))
    assert low["low_res"].tolist() == [[[1, 4, 7, 10]]]


def test_keys_tell_settings_apart():
    keys = {Mask(IMAGE).key, Mask(IMAGE, regions=["box"]).key, Mask(IMAGE, largest=0.5).key, LowRes(IMAGE).key}
    assert len(keys) == 4 and pickle.loads(pickle.dumps(Mask(IMAGE))).key == Mask(IMAGE).key


test_refuses = refusals(
    (lambda: Mask(TensorType((2,))), r"Mask expects continuous maps of shape .*, got 2 unbounded"),
    (lambda: Mask(IMAGE, regions=[]), "Mask expects one or more regions, box or half, got none"),
    (lambda: Mask(IMAGE, smallest=0.8), "Mask expects 0 < smallest <= largest <= 1, got 0.8 and 0.75"),
    (
        lambda: LowRes(IMAGE, factor=4),
        r"LowRes expects a factor that divides the sizes of 2×8×6 in \[0, 1\], got 4",
    ),
    (lambda: LowRes(IMAGE, factor=1), "got 1"),
    (lambda: LowRes(TensorType((4, 4), classes=3)), "LowRes expects continuous maps .*, got 4×4 codes"),
    (lambda: Mask(IMAGE)(torch.zeros(1, 2, 8, 8), Rng(0)), r"Mask expects samples of size \(8, 6\), got \(8, 8\)"),
)
