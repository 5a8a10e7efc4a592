"""Values of the conditioner."""

import torch

from modkit import Batch, Rng, TensorType
from modkit.starters.conditioner import OneHot

FIELDS = {"labels": TensorType((), classes=3)}


def test_a_label_is_a_one_and_none_is_zero() -> None:
    """And of 4000 labels a quarter is left out, to four standard errors."""
    conditioner = OneHot(FIELDS, drop=0.25)
    labels = torch.tensor([0, 2])
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(conditioner({"labels": labels}, None).vector, expected)
    torch.testing.assert_close(conditioner.null(2).vector, torch.zeros(2, 3))
    vector = conditioner({"labels": torch.zeros(4000, dtype=torch.int64)}, Rng(0)).vector
    assert abs(float(vector[:, 0].mean()) - 0.75) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_labels_are_drawn_as_they_come() -> None:
    """Of data with two labels, evenly."""
    conditioner = OneHot(FIELDS)
    conditioner.prepare([Batch(torch.zeros(4, 1), {"labels": torch.tensor([0, 2, 2, 0])})])
    drawn = conditioner.draw(4000, Rng(0))["labels"]
    assert set(drawn.tolist()) == {0, 2}
    assert abs(float((drawn == 0).double().mean()) - 0.5) < 4 * (0.25 / 4000) ** 0.5
