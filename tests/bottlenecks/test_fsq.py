import math

import pytest
import torch

from modkit.bottlenecks import FiniteScalarQuantizer
from modkit.types import TensorType
from tests.bottlenecks.parts import passing


def make(levels):
    """A quantizer whose features are z themselves, in float64."""
    return passing(FiniteScalarQuantizer(TensorType((len(levels),)), levels=levels, tokens=1))


def by_hand(z, number):
    """The code's digit and value, and f(z) in its scale, of one channel."""
    width = (number - 1) * 1.001 / 2
    offset = 0.0 if number % 2 else 0.5
    bounded = width * math.tanh(z + math.atanh(offset / width)) - offset
    return round(bounded) + number // 2, round(bounded) / (number // 2), bounded / (number // 2)


@pytest.mark.smoke
@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [2, 3], [7, 4, 2]])
def test_values_are_the_equations(levels):
    part = make(levels)
    h = 2 * torch.randn(300, len(levels), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values, kl, losses = part(h, None)
    assert kl is None and losses == {}
    for row, code, z, z_q in zip(h.tolist(), *(value.tolist() for value in values.values())):
        want = [by_hand(value, number) for value, number in zip(row, levels)]
        index = 0
        for (digit, _, _), number in zip(reversed(want), reversed(levels)):
            index = index * number + digit
        assert code == [index]
        assert z == pytest.approx([one for _, _, one in want], abs=1e-6)  # constants are float32's
        assert z_q == [one for _, one, _ in want]
    assert len(values["codes"].unique()) > min(100, math.prod(levels) / 2)


@pytest.mark.parametrize("levels", [[8, 5, 5, 5], [2], [2, 3, 4]])
def test_every_code_comes_back_from_its_embedding(levels):
    part = make(levels)
    codes = torch.arange(math.prod(levels))[:, None]
    z_q = part.embed(codes)
    assert torch.equal(part.encode(z_q), codes)
    assert len(z_q.unique(dim=0)) == len(codes) and z_q.min() == -1 and z_q.max() <= 1
    # each is reached from features: the inverse of f, drawn in a little
    middle, width = part.middle, part.width
    z = torch.atanh((z_q * middle + part.offset) / width * 0.999) - part.shift
    assert torch.equal(part(z.flatten(1), None).values["codes"], codes)


def test_zero_is_the_middle_and_the_ends_are_reached():
    part = make([8, 5, 2])
    assert part(torch.zeros(1, 3).double(), None).values["continuous"].abs().max() < 1e-6
    z = torch.tensor([[-50.0] * 3, [50.0] * 3]).double()
    assert torch.equal(part(z, None).values["quantized"], torch.tensor([[-1.0, -1, -1], [0.75, 1, 0]]).double())


def test_gradients_are_those_of_the_bounded_value():
    part = make([8, 5, 3])
    h = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 3, dtype=torch.float64)
    (got,) = torch.autograd.grad((weight * part(h, None).values["quantized"]).sum(), h)
    slope = (part.width / part.middle / torch.cosh(h[..., None] + part.shift) ** 2).flatten(1)
    torch.testing.assert_close(got, (weight * slope).detach())


def test_continuous_beyond_the_ends_decodes_to_them():
    part = make([8, 5])
    latent = torch.tensor([[-3.0, 3.0]]).double()
    assert torch.equal(part.to_z("continuous", latent), torch.tensor([[-1.0, 1.0]]).double())


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], r"expects one level or more and fewer than 2\^31 codes, got \[\]"),
        ([8, 1], r"expects levels\[1\] to be at least 2, got 1"),
        ([2**16, 2**15], r"expects one level or more and fewer than 2\^31 codes, got \[65536, 32768\]"),
    ],
)
def test_refuses_levels(levels, message):
    with pytest.raises(ValueError, match=f"FiniteScalarQuantizer {message}"):
        FiniteScalarQuantizer(TensorType((3,)), levels=levels)
