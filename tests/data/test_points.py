import math

import pytest
import torch

from modkit.data import Checkerboard, Spirals
from tests.data.test_mixture import whole
from tests.refusals import refusals


@pytest.mark.parametrize("data", [Checkerboard(), Checkerboard(squares=2, board=1.0)], ids=["4", "2"])
def test_a_checkerboard_is_uniform_on_its_squares(data):
    x, labels = whole(data)
    side = data.board / data.squares
    square = ((x + data.board / 2) / side).floor().long()
    assert not (square.sum(1) % 2).any()
    assert square.min() == 0 and square.max() == data.squares - 1
    classes = data.fields["labels"].classes
    assert len((square[:, 0] * data.squares + square[:, 1]).unique()) == classes == data.squares**2 // 2
    for label in range(classes):
        assert len(square[labels == label].unique(dim=0)) == 1
    # moments of u within a square and shares of squares, to six standard errors
    within = (x + data.board / 2) / side - square
    error = 6 / math.sqrt(12 * len(x))
    torch.testing.assert_close(within.mean(0), torch.full((2,), 0.5), rtol=0, atol=error)
    shares = torch.bincount(labels) / len(x)
    assert (shares - 1 / classes).abs().max() < 6 / math.sqrt(classes * len(x))
    assert data.entropy == pytest.approx(math.log(classes * side**2))


def test_spirals_lie_on_their_arms_with_their_noise():
    exact, noisy = Spirals(arms=3, std=0.0), Spirals(arms=3, std=0.2)
    x, labels = whole(exact)
    r = x.norm(dim=1) / exact.radius
    angle = 2 * math.pi * (exact.turns * r + labels / 3)
    torch.testing.assert_close(x, exact.radius * r[:, None] * torch.stack([angle.cos(), angle.sin()], 1))
    assert (r**2).mean() == pytest.approx(0.5, abs=6 / math.sqrt(12 * len(x)))  # uniform over the disk's area
    eps = (whole(noisy)[0] - x) / 0.2
    assert eps.std() == pytest.approx(1.0, abs=6 / math.sqrt(4 * len(x)))
    assert torch.equal(whole(noisy)[1], labels)


test_refusals = refusals(
    (lambda: Checkerboard(squares=3), "Checkerboard expects an even number of squares, got 3"),
    (lambda: Checkerboard(board=0.0), "Checkerboard expects board to be above 0, got 0.0"),
    (lambda: Spirals(arms=0), r"Spirals expects arms to be in \[1, 100\]"),
    (lambda: Spirals(std=-1.0), r"Spirals expects std to be at least 0, got -1\.0"),
    (lambda: Spirals(num=0), r"Spirals expects num to be in \[1, 10000000\], got 0"),
)
