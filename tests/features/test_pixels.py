import pytest
import torch

from modkit.features.pixels import Pixels
from modkit.types import TensorType
from tests.features.checks import check_extractor
from tests.refusals import check_refusal


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 2, 5), (2,), (2, 7)])
def test_values_come_back_as_rows(shape):
    part = Pixels(TensorType(shape))
    x = torch.randn(3, *shape, dtype=torch.float64)
    features = check_extractor(part, x)
    assert torch.equal(features.vector, x.reshape(3, -1))
    assert features.maps == () and features.logits is None
    assert part.label == "pixels" and part.key() == Pixels(TensorType((5,))).key()


def test_any_size_of_the_rank_and_integers():
    part = Pixels(TensorType((1, 4, 4)))
    vector = part(torch.ones(2, 1, 5, 6, dtype=torch.uint8)).vector
    assert vector.shape == (2, 30) and vector.dtype == torch.float32


def test_codes_are_refused():
    check_refusal("Pixels expects continuous data, got 4×4 codes", Pixels, TensorType((4, 4), classes=8))
