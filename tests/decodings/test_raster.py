import pytest
import torch

from modkit.decodings.raster import Raster
from modkit.rng import Rng
from modkit.types import TensorType

CODES = TensorType((1, 3), classes=4)
LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])


def chained(codes, i):
    """Code i is one of two by the code before it."""
    logits = torch.full((len(codes), 4), -torch.inf)
    before = codes[:, i - 1] if i else torch.zeros(len(codes), dtype=torch.int64)
    for step in (1, 2):
        logits.scatter_(1, ((before + step) % 4)[:, None], 0.0)
    return logits


@pytest.mark.smoke
def test_each_code_is_drawn_given_those_before():
    codes = Raster(CODES)(chained, 200, Rng(0))
    assert codes.shape == (200, 3) and codes.dtype == torch.int64
    steps = codes.diff(dim=1, prepend=torch.zeros(200, 1, dtype=torch.int64)) % 4
    assert set(steps.unique().tolist()) == {1, 2} and abs(steps.float().mean() - 1.5) < 0.1
    assert len(codes.unique(dim=0)) == 8


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature):
    codes = Raster(CODES, temperature=temperature)(lambda x, i: LOGITS.expand(len(x), 4), 3000, Rng(0))
    want = (LOGITS / temperature).softmax(0)
    error = (want * (1 - want) / codes.numel()).sqrt()
    assert ((codes.flatten().bincount(minlength=4) / codes.numel() - want).abs() < 4 * error).all()


def test_at_temperature_0_and_of_one_code_the_likeliest_is_taken():
    for options in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-3}):
        assert (Raster(CODES, **options)(lambda x, i: LOGITS.expand(len(x), 4), 9, Rng(0)) == 1).all()


def test_truncation_applies_after_temperature():
    codes = Raster(CODES, temperature=10.0, top_k=3, top_p=0.7)(lambda x, i: LOGITS.expand(len(x), 4), 500, Rng(0))
    assert set(codes.unique().tolist()) == {1, 2, 0}  # at temperature 1 the top two hold more than 0.7
    codes = Raster(CODES, temperature=10.0, top_k=2)(lambda x, i: LOGITS.expand(len(x), 4), 500, Rng(0))
    assert set(codes.unique().tolist()) == {1, 2}


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}])
def test_a_number_out_of_range_is_refused(options):
    with pytest.raises(
        ValueError, match=r"expects (temperature to be at least 0|top_k to be at least 1|top_p to be in \(0, 1\])"
    ):
        Raster(CODES, **options)
