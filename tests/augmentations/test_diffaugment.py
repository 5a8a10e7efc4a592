import pytest
import torch

from modkit import Rng, TensorType
from modkit.augmentations import DiffAugment

X = TensorType((3, 16, 8), range=(0.0, 1.0))


def augment(x, policy, key=0, **params):
    return DiffAugment(X, policy=[policy], **params)(x, Rng(key))


def test_colours_by_hand():
    x = torch.rand(5, 3, 16, 8, dtype=torch.float64)
    rng = Rng(0).at("color")
    b, s, c = (2 * rng.uniform(name, x[:, :1, :1, :1]) - 1 for name in ("brightness", "s", "contrast"))
    y = (2 * x - 1) + b / 2
    y = y.mean(1, keepdim=True) + (1 + s) * (y - y.mean(1, keepdim=True))
    mean = y.mean((1, 2, 3), keepdim=True)
    y = mean + (1 + c / 2) * (y - mean)
    torch.testing.assert_close(augment(x, "color"), (y + 1) / 2)


def test_it_moves_by_up_to_an_eighth_each_way_and_fills_with_the_middle():
    """The mark of each image tells how far; all shifts occur, about equally often."""
    x = torch.full((4000, 3, 16, 8), 0.5)
    x[:, :, 8, 4] = 1.0
    moved = augment(x, "translation")
    found = (moved[:, 0] == 1).nonzero()
    assert len(found) == 4000 and (moved.sum((1, 2, 3)) == x.sum((1, 2, 3))).all()
    for axis, size, limit in ((1, 5, 2), (2, 3, 1)):
        shift = found[:, axis] - (8, 4)[axis - 1] + limit
        counts = torch.bincount(shift, minlength=size).float()
        assert len(counts) == size and (counts - 4000 / size).abs().max() < 4 * (4000 / size) ** 0.5
    ones = augment(torch.ones(100, 3, 16, 8), "translation")
    assert set(ones.unique().tolist()) == {0.5, 1.0}


def test_it_cuts_a_rectangle_of_half_the_size_and_less_at_the_border():
    cut = augment(torch.ones(500, 3, 16, 8), "cutout") == 0.5
    rows, columns = cut[:, 0].any(2).sum(1), cut[:, 0].any(1).sum(1)
    assert (cut.sum((1, 2, 3)) == 3 * rows * columns).all()  # one rectangle, of all channels
    assert (rows.min(), rows.max()) == (4, 8) and (columns.min(), columns.max()) == (2, 4)


def test_draws_are_each_sample_s_own_and_with_strength_0_nothing_changes():
    x = torch.rand(1, 3, 16, 8).expand(4, -1, -1, -1)
    made = DiffAugment(X)(x, Rng(0))
    assert not torch.equal(made[0], made[1])
    assert torch.equal(made[2:], DiffAugment(X)(x[2:], Rng(0).rows(2)))
    assert torch.equal(DiffAugment(X, strength=0.0)(x, Rng(0)), x)
    weak = DiffAugment(X, strength=0.5)(x, Rng(0))
    assert 0 < (weak - x).abs().mean() < (made - x).abs().mean()


@pytest.mark.wide
def test_it_is_differentiated_twice():
    part = DiffAugment(TensorType((2, 4, 3)))
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: part(x, Rng(1)), x)
    assert torch.autograd.gradgradcheck(lambda x: part(x, Rng(1)).tanh(), x)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"x": TensorType((2,))}, r"DiffAugment expects continuous images \(c, h, w\), got 2 unbounded"),
        ({"policy": ["colour"]}, r"DiffAugment expects a policy of \['color', .*\], got \['colour'\]"),
        ({"strength": 1.5}, r"DiffAugment expects strength to be in \[0, 1\], got 1.5"),
    ],
)
def test_refuses(params, message):
    with pytest.raises(ValueError, match=message):
        DiffAugment(**{"x": X, **params})
