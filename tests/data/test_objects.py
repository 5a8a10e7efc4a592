"""Data given as NumPy arrays; other forms are tested beside `fit`."""

import re

import numpy as np
import pytest
import torch

from modkit import Rng, TensorType
from modkit.data.objects import as_data

X, FIELDS = TensorType((2,)), {"labels": TensorType((), classes=3)}


def make_read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "change", [np.ascontiguousarray, make_read_only, lambda array: array[::-1].copy()[::-1]], ids=["plain", "r", "flip"]
)
def test_arrays_are_read_as_tensors_are(change):
    """The fault: an AttributeError for labels, and no arrays of samples."""
    x, labels = torch.arange(12.0).view(6, 2), torch.arange(6) % 3
    made = as_data((change(x.numpy().copy()), {"labels": change(labels.numpy().copy())}), X, FIELDS)
    like = as_data((x, {"labels": labels}), X, FIELDS)
    batch = made.read("train", [4, 1], Rng(0))
    assert batch.x.tolist() == [[8, 9], [2, 3]] and batch.fields["labels"].tolist() == [1, 1]
    assert made.key == like.key == as_data((x, {"labels": change(labels.numpy().copy())}), X, FIELDS).key
    assert as_data(change(x.numpy().copy()), X, {}).key == as_data(x, X, {}).key


@pytest.mark.parametrize(
    ("labels", "received"),
    [(["a"] * 6, "a value of list"), (np.array(["a"] * 6), "a value of ndarray"), (np.zeros(5, int), "a tensor 5")],
)
def test_fields_that_are_none_are_refused(labels, received):
    message = rf"Tensors expects labels with 6 rows of .*, got {re.escape(received)}"
    with pytest.raises(ValueError, match=message):
        as_data((torch.zeros(6, 2), {"labels": labels}), X, FIELDS)
