import numpy as np
import pytest
import torch

from modkit import TensorType, use
from modkit.models import Diffusion
from tests.refusals import check_refusal


@pytest.fixture(scope="module")
def model():
    fields = {"labels": TensorType((), classes=10)}
    return Diffusion(TensorType((2,)), fields=fields, conditioner="label", network="mlp", sampler=use("ddim", steps=2))


@pytest.mark.parametrize(
    ("num", "options", "message"),
    [
        (2.5, {}, "sample expects integers num >= 1, batch_size >= 1 and first >= 0, got 2.5, 256 and 0"),
        ("2", {}, "sample expects integers num >= 1, .*, got '2', 256 and 0"),
        (2, {"batch_size": 0.5}, "sample expects integers .*, got 2, 0.5 and 0"),
        (0, {}, "sample expects integers .*, got 0, 256 and 0"),
        (2, {"labels": "3"}, "sample expects 'labels' as a number, or one for each sample, got '3'"),
        (2, {"labels": [None, 1]}, "sample expects 'labels' as a number, or one for each sample, got a value of list"),
        (
            2,
            {"start_noise": np.zeros((2, 2))},
            r"sample expects start_noise, a tensor of floats of shape \(2, 2\), got ndarray: convert it with",
        ),
    ],
)
def test_what_is_no_request_is_refused(model, num, options, message):
    """The fault: AttributeErrors and TypeErrors of torch."""
    check_refusal(message, model.sample, num, seed=0, **options)


def test_numbers_and_labels_of_numpy_are_taken(model):
    made = model.sample(np.int64(2), seed=0, labels=np.array([3, 4]))
    assert torch.equal(made, model.sample(2, seed=0, labels=[3, 4]))
