"""Extractors and samples given as objects that are none."""

import pytest
import torch

import modkit
from modkit.data import Digits
from modkit.features import Pixels
from modkit.types import Features


class Plain:
    label = "plain"

    def __call__(self, x):
        return x.flatten(1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": Plain()}, r"evaluate expects features that return `modkit.types.Features`, got Tensor of Plain"),
        (
            {"features": Pixels},
            r"evaluate expects features: a built part, .* such as Pixels\(x\).*; got the class Pixels",
        ),
        (
            {"features": lambda x: Features(x)},
            r"evaluate expects features: a built part, which has a `label`.*function",
        ),
        ({"real": Digits(size=8)}, r"real: expected samples: a tensor or array, .*, got Digits; .*`data\.read\("),
        ({"fake": 3}, r"fake: expected samples: a tensor or array, a path, .* or a Model, got int$"),
    ],
)
def test_what_is_no_extractor_and_no_samples_is_refused(options, message):
    """The fault: AttributeErrors, and `'Digits' object is not iterable`."""
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=message):
        modkit.evaluate(**{"real": x, "fake": x, "features": "pixels", "metrics": ["fd"], **options})


def test_samples_of_a_data_set_are_compared_as_the_refusal_says():
    data = Digits(size=8)
    x = data.read("test", range(32), modkit.Rng(0)).x
    scores = modkit.evaluate(real=x, fake=x, features="pixels", metrics=["fd"]).scores
    assert next(iter(scores.values())).value == pytest.approx(0, abs=1e-6)
